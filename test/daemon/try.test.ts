import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { plainEnvironment, run } from '../shoal-process.ts'

test('npm run try shows a cold pull, a warm one, and one without internet, and what each cost', async () => {
  const { status, stdout, stderr } = await run('npm', ['run', 'try', '--silent'], { env: plainEnvironment() })
  assert.equal([status, stderr], [0, ''], stdout)
  assert.match(
    stdout,
    /^ {2}first pull +\d+ ms +\d+, \d of them HEAD +64\.0 MB +mirror\.gcr\.io 44\.0 MB, Docker Hub 20\.0 MB$/m,
  )
  assert.match(stdout, /^ {2}second pull +\d+ ms +\d+, \d of them HEAD +0 +this machine 64\.0 MB$/m)
  assert.match(stdout, /^ {2}without internet +\d+ ms +0 +0 +this machine 64\.0 MB$/m)
})

test.run()
