import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { SourceError } from '@shoal/store/source'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ScriptedServer } from '../../../test/scripted-server.ts'
import { AddressPolicy } from './address-policy.ts'
import { type Challenge, type Credentials, parseChallenge, Tokens } from './token.ts'
import { Transport } from './transport.ts'

const never = new AbortController().signal
const scope = 'repository:library/busybox:pull'

/** A token service on this machine, and the tokens of an endpoint on it. */
class World implements AsyncDisposable {
  time = 0
  readonly server: ScriptedServer
  readonly tokens: Tokens
  readonly #transport: Transport

  private constructor(server: ScriptedServer, credentials: Credentials | undefined) {
    this.server = server
    const endpoint = new URL(server.url)
    const policy = new AddressPolicy([endpoint])
    this.#transport = new Transport({
      policy,
      ca: undefined,
      connectTimeout: 2000,
      answerTimeout: 4000,
      bodyTimeout: 2000,
      connections: 4,
      env: {},
    })
    this.tokens = new Tokens(endpoint, {
      transport: this.#transport,
      policy,
      credentials,
      userAgent: 'test',
      now: () => this.time,
    })
  }

  static async open(answer: RequestListener, credentials?: Credentials): Promise<World> {
    return new World(await ScriptedServer.open(answer), credentials)
  }

  /** Has the endpoint ask for tokens from its own token service. */
  challenge(realm = `${this.server.url}/token`): boolean {
    const challenge: Challenge = { scheme: 'bearer', realm: new URL(realm), service: 'the registry' }
    return this.tokens.refused(challenge, scope, undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport.close()
    await this.server[Symbol.asyncDispose]()
  }
}

const json = (value: unknown) => (_request: IncomingMessage, response: ServerResponse) =>
  void response.end(JSON.stringify(value))

async function failure(promise: Promise<unknown>): Promise<SourceError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof SourceError) return error
    throw error
  }
  throw new Error('it did not fail')
}

test('a challenge of Docker Hub is read', () => {
  const header = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:x:pull"'
  assert.equal(parseChallenge(header), {
    scheme: 'bearer',
    realm: new URL('https://auth.docker.io/token'),
    service: 'registry.docker.io',
  })
})

test('odd but valid challenges are read', () => {
  const realmOf = (header: string) => {
    const challenge = parseChallenge(header)
    return challenge?.scheme === 'bearer' ? challenge.realm.href : challenge?.scheme
  }
  assert.is(realmOf('bearer Realm = "https://a.example/t"'), 'https://a.example/t')
  assert.is(realmOf('BEARER  service=x , realm=https://a.example/t'), 'https://a.example/t')
  assert.is(realmOf('Bearer realm="https://a.example/\\t"'), 'https://a.example/t')
  assert.is(
    realmOf('Bearer service="a, realm=\\"https://evil.example/\\"",realm="https://a.example/t"'),
    'https://a.example/t',
  )
  assert.is(realmOf('Bearer realm="https://a.example/t", Basic realm="somewhere"'), 'https://a.example/t')
  assert.is(realmOf('Basic realm="somewhere"'), 'basic')
  assert.is(realmOf('basic'), 'basic')
})

test('what is no challenge that can be answered is none', () => {
  for (const header of [
    undefined,
    '',
    'Bearer',
    'Bearer service="x"',
    'Bearer realm="/token"',
    'Negotiate',
    'Bearerx realm="https://a.example"',
    'Bearer realm="https://a.example',
  ])
    assert.is(parseChallenge(header), undefined, header ?? 'none')
})

test('no header makes the parser fail', () => {
  const words = fc.constantFrom('Bearer ', 'Basic ', 'realm', '=', '"', '\\', ',', ' ', 'https://a.example/', 'x')
  fc.assert(fc.property(fc.array(words), parts => void parseChallenge(parts.join(''))))
})

test('as long as the endpoint has not asked there is no authorization', async () => {
  await using world = await World.open(json({}), { username: 'me', password: 'secret' })
  assert.is(await world.tokens.authorization(scope, never), undefined)
  assert.is(world.server.requests.length, 0)
})

test('a token is asked for by service and scope, without credentials where there are none', async () => {
  await using world = await World.open(json({ token: 'abc' }))
  assert.ok(world.challenge(`${world.server.url}/token?scope=everything&x=1`))
  assert.is(await world.tokens.authorization(scope, never), 'Bearer abc')
  const [request] = world.server.requests
  const url = new URL(request?.url ?? '', world.server.url)
  assert.equal(url.searchParams.getAll('scope'), [scope])
  assert.is(url.searchParams.get('service'), 'the registry')
  assert.is(url.searchParams.get('x'), '1')
  assert.is(url.searchParams.get('account'), null)
  assert.is(request?.headers.authorization, undefined)
})

test('credentials go to the token service', async () => {
  await using world = await World.open(json({ access_token: 'abc' }), { username: 'me', password: 'se:cret' })
  world.challenge()
  assert.is(await world.tokens.authorization(scope, never), 'Bearer abc')
  const [request] = world.server.requests
  assert.is(request?.headers.authorization, `Basic ${Buffer.from('me:se:cret').toString('base64')}`)
  assert.ok(request?.url?.includes('account=me'))
})

test('credentials never go to a realm of another domain', async () => {
  await using world = await World.open(json({ token: 'abc' }), { username: 'me', password: 'secret' })
  await using evil = await ScriptedServer.open(json({ token: 'abc' }))
  for (const realm of [`http://localhost:${evil.port}/`, 'https://auth.evil.example/token', 'https://127.0.0.2/']) {
    world.challenge(realm)
    const error = await failure(world.tokens.authorization(scope, never))
    assert.is(error.code, 'broken')
    assert.not.match(error.message, 'secret')
  }
  assert.is(evil.requests.length, 0)
})

test('a token is kept until it nearly expires', async () => {
  await using world = await World.open(json({ token: 'abc', expires_in: 300 }))
  world.challenge()
  await world.tokens.authorization(scope, never)
  world.time = 289_999
  await world.tokens.authorization(scope, never)
  assert.is(world.server.requests.length, 1)
  world.time = 290_000
  await world.tokens.authorization(scope, never)
  assert.is(world.server.requests.length, 2)
})

test('without a lifetime, or with an odd one, it is a minute', async () => {
  for (const expires_in of [undefined, 0, -5, '300', null]) {
    await using world = await World.open(json({ token: 'abc', expires_in }))
    world.challenge()
    await world.tokens.authorization(scope, never)
    world.time = 53_999
    await world.tokens.authorization(scope, never)
    assert.is(world.server.requests.length, 1)
    world.time = 54_000
    await world.tokens.authorization(scope, never)
    assert.is(world.server.requests.length, 2)
  }
})

test('many who wait share one request, and one that leaves leaves the others be', async () => {
  const answers: ServerResponse[] = []
  const asked = Promise.withResolvers<void>()
  await using world = await World.open((_request, response) => {
    answers.push(response)
    asked.resolve()
  })
  world.challenge()
  const leaving = new AbortController()
  const waiting = Array.from({ length: 20 }, () => world.tokens.authorization(scope, never))
  const left = world.tokens.authorization(scope, leaving.signal)
  await asked.promise
  leaving.abort(new SourceError('revoked', 'left'))
  assert.is((await failure(left)).code, 'revoked')
  for (const answer of answers) answer.end(JSON.stringify({ token: 'abc' }))
  assert.equal(new Set(await Promise.all(waiting)), new Set(['Bearer abc']))
  assert.is(world.server.requests.length, 1)
})

test('each scope has its own token', async () => {
  await using world = await World.open((request, response) => {
    const scope = new URL(request.url ?? '', 'http://x').searchParams.get('scope')
    response.end(JSON.stringify({ token: Buffer.from(scope ?? '').toString('hex') }))
  })
  world.challenge()
  const [a, b] = await Promise.all([world.tokens.authorization('a', never), world.tokens.authorization('b', never)])
  assert.equal([a, b], ['Bearer 61', 'Bearer 62'])
})

test('a refused token is forgotten, but not one that came after it', async () => {
  let serial = 0
  await using world = await World.open(
    (_request, response) => void response.end(JSON.stringify({ token: `t${++serial}`, expires_in: 300 })),
  )
  world.challenge()
  const realm = new URL(`${world.server.url}/token`)
  const first = await world.tokens.authorization(scope, never)
  world.tokens.refused({ scheme: 'bearer', realm, service: undefined }, scope, first)
  assert.is(await world.tokens.authorization(scope, never), 'Bearer t2')
  world.tokens.refused({ scheme: 'bearer', realm, service: undefined }, scope, first)
  assert.is(await world.tokens.authorization(scope, never), 'Bearer t2')
})

test('a failed request fails those who wait; after the next challenge it is asked again', async () => {
  let status = 500
  await using world = await World.open((_request, response) => {
    response.statusCode = status
    response.end(JSON.stringify({ token: 'abc' }))
  })
  for (const [answer, code] of [
    [500, 'failing'],
    [401, 'denied'],
    [403, 'denied'],
    [429, 'limited'],
    [307, 'failing'],
  ] as const) {
    status = answer
    world.challenge()
    assert.is((await failure(world.tokens.authorization(scope, never))).code, code, String(answer))
  }
  status = 200
  world.challenge()
  assert.is(await world.tokens.authorization(scope, never), 'Bearer abc')
})

test('an answer with no token that a header could bear is broken', async () => {
  let body = ''
  await using world = await World.open((_request, response) => void response.end(body))
  for (const answer of [
    '',
    'null',
    '[]',
    '"abc"',
    '{}',
    '{"token":""}',
    '{"token":7}',
    '{"token":"a\\r\\nb: c"}',
    '{',
  ]) {
    body = answer
    world.challenge()
    const error = await failure(world.tokens.authorization(scope, never))
    assert.is(error.code, 'broken', answer)
  }
})

test('an endless answer is cut off', async () => {
  await using world = await World.open((_request, response) => {
    response.on('error', () => {})
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, 32)));
    }
    response.on('drain', more)
    more()
  })
  world.challenge()
  assert.is((await failure(world.tokens.authorization(scope, never))).code, 'broken')
})

test('basic: credentials go with each request; without any it is not worth asking again', async () => {
  await using known = await World.open(json({}), { username: 'me', password: 'secret' })
  assert.ok(known.tokens.refused({ scheme: 'basic' }, scope, undefined))
  const header = `Basic ${Buffer.from('me:secret').toString('base64')}`
  assert.is(await known.tokens.authorization(scope, never), header)
  assert.not(known.tokens.refused({ scheme: 'basic' }, scope, header))
  await using anonymous = await World.open(json({}))
  assert.not(anonymous.tokens.refused({ scheme: 'basic' }, scope, undefined))
  assert.is(await anonymous.tokens.authorization(scope, never), undefined)
})

test('a 401 without a challenge is not worth asking again', async () => {
  await using world = await World.open(json({}))
  assert.not(world.tokens.refused(undefined, scope, undefined))
})

test.run()
