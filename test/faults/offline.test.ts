import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Content, sha256 } from '../../scripts/internet/content.ts'
import type { Image } from '../../scripts/internet/image.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { NetworkNamespace } from '../network-namespace.ts'
import { testUnless, whyNot } from '../prerequisites.ts'
import { RunningProcess, root, ShoalProcess, shoalBin, until } from '../shoal-process.ts'

const execute = promisify(execFile)
const loopbackTest = testUnless(whyNot(['curl'], 'curl', { needsRoot: false }))
const namespaceTest = testUnless(whyNot(['ip', 'curl'], 'iproute2, curl'))

/** How long answers may take, in ms: those of the code, and what a busy machine adds. The next longer ones are 12 s. */
const patience = {
  /** What needs nobody else. */
  held: 1000,
  /** A tag, or a list, that is held and due for a check, as long as nobody knows yet that upstream is silent: 1 s. */
  check: 2500,
  /** What is not held: 2.9 s. */
  lacking: 6000,
}

const repository = 'library/held'
const tagPath = `/v2/${repository}/manifests/latest`
const listPath = `/v2/${repository}/tags/list`
const manifestPath = ({ digest }: Content) => `/v2/${repository}/manifests/${digest}`
const blobPath = ({ digest }: Content) => `/v2/${repository}/blobs/${digest}`

/** A way to an endpoint, which can be cut off. */
class Way implements AsyncDisposable {
  readonly url: string
  readonly #server: Server
  readonly #port: number
  readonly #sockets = new Set<Socket>()
  #silent = false

  static async open(to: string): Promise<Way> {
    const sockets: Socket[] = []
    const server = createServer(socket => void sockets.push(socket))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Way(server, new URL(to))
  }

  private constructor(server: Server, to: URL) {
    this.#server = server
    this.#port = (server.address() as AddressInfo).port
    this.url = `${to.protocol}//127.0.0.1:${this.#port}`
    server.on('connection', socket => {
      this.#keep(socket)
      if (this.#silent) return
      const onward = this.#keep(connect(Number(to.port), '127.0.0.1'))
      socket.pipe(onward).pipe(socket)
    })
  }

  #keep(socket: Socket): Socket {
    this.#sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => this.#sockets.delete(socket))
    return socket
  }

  #disconnect(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  /** From now on connections are accepted, and nothing comes. */
  silence(): void {
    this.#silent = true
    this.#disconnect()
  }

  /** From now on connections are refused. */
  async shut(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#disconnect()
    await closed
  }

  /** It leads there again. */
  async restore(): Promise<void> {
    this.#silent = false
    if (this.#server.listening) return
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.shut()
  }
}

type Reply = { status: number; cacheStatus: string | undefined; body: Buffer; ms: number }

/** A daemon that has pulled an image, and that then is to be without upstream. */
class Host implements AsyncDisposable {
  readonly internet: Internet
  readonly ways: { readonly gcr: Way; readonly hub: Way }
  readonly image: Image
  /** The tags of the image's repository, as they were listed. */
  list: Buffer = Buffer.alloc(0)
  /** Where the daemon runs, if not beside the stand-in internet. */
  namespace: NetworkNamespace | undefined
  readonly #shoal: ShoalProcess
  readonly #opened: AsyncDisposableStack
  #daemon: RunningProcess | undefined

  static async open({ tls = false } = {}): Promise<Host> {
    await using opened = new AsyncDisposableStack()
    const internet = opened.use(await Internet.open({ tls }))
    const gcr = opened.use(await Way.open(internet.gcr.url))
    const hub = opened.use(await Way.open(internet.hub.url))
    const image = await internet.add({ repository, tag: 'latest', layers: [300_000, 1000, 20] })
    const env = { SHOAL_TAGS_TTL: '1ms', SHOAL_UPSTREAMS_DOCKER_IO_ENDPOINTS: `${gcr.url},${hub.url}` }
    const shoal = opened.use(await ShoalProcess.prepare({ internet, env }))
    const host = new Host(internet, { gcr, hub }, image, shoal, opened.move())
    try {
      await host.start()
      await host.pull()
      const { status, body } = await host.ask('GET', listPath)
      assert.is(status, 200)
      host.list = body
    } catch (error) {
      await host[Symbol.asyncDispose]()
      throw error
    }
    return host
  }

  private constructor(
    internet: Internet,
    ways: Host['ways'],
    image: Image,
    shoal: ShoalProcess,
    opened: AsyncDisposableStack,
  ) {
    this.internet = internet
    this.ways = ways
    this.image = image
    this.#shoal = shoal
    this.#opened = opened
  }

  /** Moves the daemon, when it is started next, to a host that knows other endpoints. */
  move(namespace: NetworkNamespace, endpoints: string): void {
    this.namespace = this.#opened.use(namespace)
    Object.assign(this.#shoal.env, { SHOAL_UPSTREAMS_DOCKER_IO_ENDPOINTS: endpoints })
  }

  async start(): Promise<void> {
    const env = {
      ...this.#shoal.env,
      PATH: `${join(root, 'node_modules', '.bin')}${delimiter}${this.#shoal.env['PATH']}`,
    }
    const { namespace } = this
    const daemon = namespace
      ? namespace.start(shoalBin, ['start'], { env })
      : this.#opened.use(new RunningProcess(shoalBin, ['start'], { env }))
    this.#daemon = daemon
    await until(
      async () => {
        if (!daemon.running) throw new Error(`the daemon has ended:\n${daemon.output.stderr}`)
        const answer = await this.#curl('GET', `${this.#shoal.admin}/readyz`).catch(() => undefined)
        return answer?.status === 200 ? answer : undefined
      },
      () => `the daemon does not become ready:\n${daemon.output.stderr}`,
    )
  }

  async stop(): Promise<void> {
    this.#daemon?.kill('SIGTERM')
    assert.is(await this.#daemon?.end(5000), 0)
  }

  /** Asks the mirror, from where the daemon runs. */
  ask(method: 'GET' | 'HEAD', path: string): Promise<Reply> {
    return this.#curl(method, this.#shoal.mirror + path)
  }

  async #curl(method: 'GET' | 'HEAD', url: string): Promise<Reply> {
    const write = '%{stderr}%{http_code} %{time_total}'
    const args = ['-sS', '--noproxy', '*', method === 'HEAD' ? '-I' : '-i', '-w', write, '--max-time', '30', url]
    const { stdout, stderr } = this.namespace
      ? await this.namespace.execute('curl', args)
      : await execute('curl', args, { encoding: 'buffer' })
    const [status, seconds] = stderr.toString().split(' ').map(Number)
    const end = stdout.indexOf('\r\n\r\n')
    const [, cacheStatus] = /^cache-status: (.*?)\r?$/im.exec(stdout.subarray(0, end).toString()) ?? []
    return { status: status ?? 0, cacheStatus, body: stdout.subarray(end + 4), ms: (seconds ?? 0) * 1000 }
  }

  /** Pulls the image as clients do. */
  async pull(): Promise<void> {
    const { manifest, config, layers } = this.image
    await this.get(tagPath, manifest)
    await this.get(manifestPath(manifest), manifest)
    await Promise.all([config, ...layers].map(blob => this.get(blobPath(blob), blob)))
  }

  async get(path: string, { source }: Content): Promise<Reply> {
    const reply = await this.ask('GET', path)
    assert.is(reply.status, 200, `${path}: ${reply.body.subarray(0, 500)}`)
    assert.ok(reply.body.equals(source as Buffer), path)
    return reply
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}

/** @returns the longest time, in ms */
function slowest(replies: readonly Reply[], atMost: number): number {
  const longest = Math.max(...replies.map(({ ms }) => ms))
  assert.ok(longest <= atMost, `${Math.round(longest)} ms, not ${atMost}`)
  return longest
}

/** All that is named by digest: there is nobody to be asked. */
async function digests(host: Host): Promise<Reply[]> {
  const { manifest, config, layers } = host.image
  const asked = [config, ...layers].flatMap(blob => [host.get(blobPath(blob), blob), host.ask('HEAD', blobPath(blob))])
  const path = manifestPath(manifest)
  const replies = await Promise.all([host.get(path, manifest), host.ask('HEAD', path), ...asked])
  for (const { status, cacheStatus } of replies) {
    assert.is(status, 200)
    assert.is(cacheStatus, 'shoal; hit; detail=local')
  }
  return replies
}

/** The tag and the list, which are as they were. */
async function names(host: Host): Promise<Reply[]> {
  const { manifest } = host.image
  const get = await host.get(tagPath, manifest)
  const replies = [get, ...(await Promise.all([host.ask('HEAD', tagPath), host.ask('GET', listPath)]))]
  for (const { status, cacheStatus } of replies) {
    assert.is(status, 200)
    assert.is(cacheStatus, 'shoal; hit; detail=stale')
  }
  assert.ok(replies[2]?.body.equals(host.list))
  return replies
}

const resting = 'failed lately, and is given a rest'

/** A pull of what is not held: manifests and blobs, all at once. Each is a 404 that says why, or that it is known. */
async function lacking(host: Host, why: string): Promise<Reply[]> {
  const reason = new RegExp(`${why}|${resting}`)
  const other = `/v2/library/other${randomBytes(4).toString('hex')}`
  const digest = () => sha256(randomBytes(32))
  const blobs = Array.from({ length: 6 }, () => `${other}/blobs/${digest()}`)
  const paths = [`${other}/manifests/latest`, `${other}/manifests/${digest()}`, ...blobs]
  const get = Promise.all([...paths, `${other}/tags/list`].map(path => host.ask('GET', path)))
  const head = Promise.all(paths.slice(0, 4).map(path => host.ask('HEAD', path)))
  const [gets, heads] = await Promise.all([get, head])
  for (const { body } of gets) {
    const { errors } = JSON.parse(body.toString()) as { errors: { code: string; message: string }[] }
    assert.match(errors[0]?.code ?? '', /^(?:MANIFEST|BLOB|NAME)_UNKNOWN$/)
    assert.match(errors[0]?.message ?? '', reason)
  }
  for (const { status } of [...gets, ...heads]) assert.is(status, 404)
  return [...gets, ...heads]
}

/** Once upstream cannot be reached: what is held is there, and the rest is a 404. */
async function manage(host: Host, how: string, why: string): Promise<void> {
  await host.start()
  const byDigest = slowest(await digests(host), patience.held)
  const first = slowest([await host.get(tagPath, host.image.manifest)], patience.check)
  const second = slowest([await host.ask('HEAD', tagPath)], patience.held)
  slowest(await names(host), patience.check)
  await host.stop()
  await host.start()
  const absent = await lacking(host, why)
  assert.ok(absent.some(({ body }) => new RegExp(why).test(body.toString())))
  const known: number[] = []
  const again: number[] = []
  for (let round = 0; round < 4; round++) {
    slowest(await digests(host), patience.check)
    known.push(slowest(await names(host), patience.check))
    again.push(slowest(await lacking(host, why), patience.lacking))
  }
  // A tag is what finds out, at times, whether a circuit may be closed; others do not wait.
  const [, usual = Number.NaN] = known.sort((a, b) => a - b)
  assert.ok(usual <= patience.held, `${known.map(Math.round)} ms`)
  const times = { 'by digest': byDigest, 'by tag': first, 'by tag, later': Math.max(second, usual) }
  const all = { ...times, 'not held': slowest(absent, patience.lacking), 'not held, later': Math.max(...again) }
  const measured = Object.entries(all).map(([what, ms]) => `${what} ${(ms / 1000).toFixed(2)} s`)
  console.log(`measured: ${how}: ${measured.join(', ')}`)
}

/** Once upstream can be reached again: without a restart, the tag is checked, and what was not held is to be had. */
async function recover(host: Host): Promise<void> {
  await until(
    async () => ((await host.ask('GET', tagPath)).cacheStatus === 'shoal; hit; detail=local' ? true : undefined),
    () => 'the tag is not checked again',
    20_000,
  )
  const [layer] = host.internet.images.image('library/zstd').layers
  await until(
    async () => {
      const { status, body } = await host.ask('GET', `/v2/library/zstd/blobs/${layer!.digest}`)
      return status === 200 && body.equals(layer!.source as Buffer) ? true : undefined
    },
    () => 'what is not held is not to be had',
    20_000,
  )
}

/** A host whose packets leave it, and are never heard of again. */
async function blackHole(options: { nameserver?: string } = {}): Promise<NetworkNamespace> {
  const namespace = await NetworkNamespace.open(options)
  await namespace.ip('link', 'add', 'dev', 'way', 'type', 'veth', 'peer', 'name', 'end')
  await namespace.ip('link', 'set', 'dev', 'way', 'up')
  await namespace.ip('link', 'set', 'dev', 'end', 'up')
  await namespace.ip('address', 'add', '198.51.100.2/24', 'dev', 'way')
  // Nobody at the other end has this address, so that nothing there looks at what is for it.
  await namespace.ip(
    'neighbour',
    'add',
    '198.51.100.1',
    'lladdr',
    '02:00:00:00:00:01',
    'dev',
    'way',
    'nud',
    'permanent',
  )
  await namespace.ip('route', 'add', 'default', 'via', '198.51.100.1')
  return namespace
}

const addresses = 'http://192.0.2.1,http://192.0.2.2'
const hosts = 'https://mirror.invalid,https://registry.invalid'
const silence = String.raw`did not answer in time|cannot be reached \(UND_ERR_CONNECT_TIMEOUT\)|has answered within 2\.9 s`

loopbackTest(
  'where connections are refused, what is held is served, and the rest is a 404 until they no longer are',
  async () => {
    await using host = await Host.open()
    await host.stop()
    await Promise.all([host.ways.gcr.shut(), host.ways.hub.shut()])
    await manage(host, 'refused', String.raw`cannot be reached \(ECONNREFUSED\)`)
    await Promise.all([host.ways.gcr.restore(), host.ways.hub.restore()])
    await recover(host)
  },
)

for (const tls of [false, true])
  loopbackTest(`where connections are accepted and never answered (${tls ? 'https' : 'http'}), the same`, async () => {
    await using host = await Host.open({ tls })
    await host.stop()
    host.ways.gcr.silence()
    host.ways.hub.silence()
    await manage(host, `never answered, ${tls ? 'https' : 'http'}`, silence)
    await Promise.all([host.ways.gcr.restore(), host.ways.hub.restore()])
    await recover(host)
  })

loopbackTest('where the hub never answers, and mirror.gcr.io has nothing, the same', async () => {
  await using host = await Host.open()
  await host.stop()
  host.ways.hub.silence()
  await manage(host, 'only the hub never answers', silence)
  await host.ways.hub.restore()
  await recover(host)
})

for (const [how, { open, endpoints, why }] of Object.entries({
  'there is no route': {
    open: () => NetworkNamespace.open(),
    endpoints: addresses,
    why: String.raw`cannot be reached \((?:ENETUNREACH|EHOSTUNREACH)\)`,
  },
  'names do not resolve': {
    open: () => NetworkNamespace.open({ nameserver: '192.0.2.53' }),
    endpoints: hosts,
    why: String.raw`cannot be reached \((?:EAI_AGAIN|ENOTFOUND)\)`,
  },
  'questions for names are swallowed': {
    open: () => blackHole({ nameserver: '192.0.2.53' }),
    endpoints: hosts,
    why: silence,
  },
  'packets are swallowed': { open: () => blackHole(), endpoints: addresses, why: silence },
}))
  namespaceTest(`where ${how}, what is held is served, and the rest is a 404`, async () => {
    await using host = await Host.open()
    await host.stop()
    host.move(await open(), endpoints)
    await manage(host, how, why)
  })

test.run()
