import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fetchWhole } from '../../../../test/world.ts'
import { Secret, secretFile } from './secret.ts'
import { type Action, AdminServer, ConflictError, InputError } from './server.ts'

/** An admin side that can do one thing. */
class Side implements AsyncDisposable {
  readonly folder: string
  readonly server: AdminServer
  readonly url: string
  readonly authorization: string
  acts = 0

  private constructor(folder: string, server: AdminServer, url: string, authorization: string) {
    this.folder = folder
    this.server = server
    this.url = url
    this.authorization = authorization
  }

  static async open(act: Action): Promise<Side> {
    const folder = await mkdtemp(join(tmpdir(), 'shoal-admin-'))
    const server = new AdminServer({
      ready: () => true,
      health: () => ({}),
      metrics: async () => ({ contentType: 'text/plain', body: '' }),
      api: { status: () => ({}) },
      actions: {
        act: (accept, signal, input) => {
          side.acts++
          return act(accept, signal, input)
        },
      },
      secret: await Secret.make(folder),
    })
    const { port } = await server.listen('127.0.0.1', 0)
    const secret = (await readFile(secretFile(folder), 'utf8')).trim()
    const side = new Side(folder, server, `http://127.0.0.1:${port}/api/v1/act`, `Bearer ${secret}`)
    return side
  }

  post(headers: Record<string, string> = { authorization: this.authorization }) {
    return fetchWhole('POST', this.url, headers)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close()
    await rm(this.folder, { recursive: true })
  }
}

test('the secret is for the user alone, and another each time', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-secret-'))
  try {
    const first = await Secret.make(folder)
    const text = await readFile(secretFile(folder), 'utf8')
    assert.match(text, /^[\w-]{43}\n$/)
    assert.is((await stat(secretFile(folder))).mode & 0o777, 0o600)
    assert.ok(first.admits(`Bearer ${text.trim()}`))
    assert.ok(first.admits(`bearer ${text.trim()}`))
    const second = await Secret.make(folder)
    assert.not(second.admits(`Bearer ${text.trim()}`))
    for (const header of [undefined, '', 'Bearer', 'Bearer ', `Basic ${text.trim()}`, text.trim(), 'Bearer x'])
      assert.not(first.admits(header), header)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('what is done is told line by line, to who bears the secret', async () => {
  await using side = await Side.open(async accept => {
    const send = accept()
    await send({ n: 1 })
    await send({ n: 2 })
  })
  const { status, headers, body } = await side.post()
  assert.equal([status, headers['content-type']], [200, 'application/x-ndjson'])
  assert.is(body.toString(), '{"n":1}\n{"n":2}\n')
})

test('without the secret nothing is done, and it is said where it is', async () => {
  await using side = await Side.open(async accept => void accept())
  for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: `Basic ${side.authorization}` }]) {
    const { status, headers: answered, body } = await side.post(headers)
    assert.is(status, 401)
    assert.is(answered['www-authenticate'], 'Bearer realm="shoal"')
    assert.match(JSON.parse(body.toString()).error, 'admin.token in the data folder')
  }
  assert.is(side.acts, 0)
})

test('a page of another site can do nothing, even with the secret', async () => {
  await using side = await Side.open(async accept => void accept())
  const { authorization } = side
  for (const headers of [
    { origin: 'https://example.com' },
    { 'sec-fetch-site': 'cross-site' },
    { host: 'example.com' },
  ])
    assert.is((await side.post({ authorization, ...headers })).status, 421)
  assert.is(side.acts, 0)
})

test('only POST does something, and it does nothing elsewhere', async () => {
  await using side = await Side.open(async accept => void accept())
  const { authorization } = side
  for (const method of ['GET', 'HEAD', 'PUT', 'DELETE']) {
    const { status, headers } = await fetchWhole(method, side.url, { authorization })
    assert.equal([status, headers['allow']], [405, 'POST'])
  }
  const { status, headers } = await fetchWhole('POST', side.url.replace('act', 'status'), { authorization })
  assert.equal([status, headers['allow']], [405, 'GET, HEAD'])
  assert.is(side.acts, 0)
})

test('what is sent is taken as JSON, if it is not too much', async () => {
  await using side = await Side.open(async (accept, _signal, input) => accept()({ input: input ?? null }))
  const { url, authorization } = side
  const post = async (body: string) => {
    const answer = await fetch(url, { method: 'POST', headers: { authorization }, body })
    return [answer.status, await answer.json()]
  }
  assert.equal(await post('{"a":1}'), [200, { input: { a: 1 } }])
  assert.equal(await post(''), [200, { input: null }])
  assert.equal(await post('{'), [400, { error: 'expected JSON' }])
  assert.equal(await post(`"${'x'.repeat(100_000)}"`), [400, { error: 'expected at most 4096 bytes' }])
  assert.is(side.acts, 2)
})

test('what cannot be used is 400', async () => {
  await using side = await Side.open(async () => {
    throw new InputError('that is no token')
  })
  const { status, body } = await side.post()
  assert.equal([status, JSON.parse(body.toString())], [400, { error: 'that is no token' }])
})

test('what cannot be done now is 409, and what fails under way is broken off', async () => {
  await using busy = await Side.open(async () => {
    throw new ConflictError('it is being done')
  })
  const refused = await busy.post()
  assert.equal([refused.status, JSON.parse(refused.body.toString())], [409, { error: 'it is being done' }])
  await using failing = await Side.open(async accept => {
    await accept()({ n: 1 })
    throw new Error('the disk fails')
  })
  assert.instance(await failing.post().catch((error: unknown) => error), Error)
})

test('a server that closes has its action end first', async () => {
  const begun = Promise.withResolvers<void>()
  let ended = false
  await using side = await Side.open(async (accept, signal) => {
    await accept()({ n: 1 })
    begun.resolve()
    await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve()))
    await new Promise(resolve => setImmediate(resolve))
    ended = true
  })
  const answer = side.post().catch((error: unknown) => error)
  await begun.promise
  await side.server.close()
  assert.ok(ended)
  assert.instance(await answer, Error)
})

test.run()
