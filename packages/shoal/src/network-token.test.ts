import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createToken, networkOf, TokenError } from '@shoal/swarm/network'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { NetworkToken, networkTokenFile } from './network-token.ts'
import { StartError } from './setting-file.ts'

const test = suite<{ folder: string }>('network token')
test.before.each(async context => {
  context.folder = await mkdtemp(join(tmpdir(), 'shoal-token-'))
})
test.after.each(({ folder }) => rm(folder, { recursive: true }))

test('what was joined is kept for the user alone, until it is left', async ({ folder }) => {
  const token = createToken()
  const { name } = networkOf(token)
  assert.is((await new NetworkToken(folder).network()).name, 'open')
  assert.is((await new NetworkToken(folder).keep(` ${token}\n`)).name, name)
  assert.is((await new NetworkToken(folder).network()).name, name)
  assert.is(await readFile(networkTokenFile(folder), 'utf8'), `${token}\n`)
  assert.is((await stat(networkTokenFile(folder))).mode & 0o777, 0o600)
  const other = createToken()
  await new NetworkToken(folder).keep(other)
  assert.is((await new NetworkToken(folder).network()).name, networkOf(other).name)
  await new NetworkToken(folder).forget()
  await new NetworkToken(folder).forget()
  assert.is((await new NetworkToken(folder).network()).name, 'open')
})

test('what is no token changes nothing', async ({ folder }) => {
  const token = createToken()
  await new NetworkToken(folder).keep(token)
  for (const wrong of ['', 'shoal-', token.slice(0, -1), `${token}x`]) {
    const error = await new NetworkToken(folder).keep(wrong).catch((error: unknown) => error)
    assert.instance(error, TokenError)
  }
  assert.is((await new NetworkToken(folder).network()).name, networkOf(token).name)
})

test('a kept token that is cut short is not taken for the open network', async ({ folder }) => {
  const token = createToken()
  await new NetworkToken(folder).keep(token)
  for (const text of ['', token.slice(0, 20)]) {
    await writeFile(networkTokenFile(folder), text)
    const error = await new NetworkToken(folder).network().catch((error: unknown) => error)
    if (!(error instanceof StartError)) throw error
    assert.match(error.message, `${networkTokenFile(folder)} is not a whole token: remove it`)
    assert.not.match(error.message, token.slice(8, 20))
  }
})

test.run()
