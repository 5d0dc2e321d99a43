import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { test } from 'uvu'
import { generateTrace } from './generated.ts'
import { parseSettings, SettingsError } from './settings.ts'
import { halfOf, parseSizes, parseTrace, readText, uniqueBytesOf } from './trace.ts'

const uris = 'v2\nv2/team/app/blobs/aa\nv2/team/app/manifests/cc\n/v2/base/blobs/bb\r\nv2/team/app/blobs/aa\n'

test('a trace is what is asked for by digest, in order; pings and manifests are left out', () => {
  const { digests, repositories, requests } = parseTrace(uris, [1000])
  assert.deepEqual(digests, ['aa', 'bb'])
  assert.deepEqual(repositories, ['team/app', 'base'])
  assert.deepEqual(
    requests.map(({ blob, repository }) => [blob, repository]),
    [
      [0, 0],
      [1, 1],
      [0, 0],
    ],
  )
  assert.throws(() => parseTrace('v2\nv2/team/app/manifests/cc\n', [1000]), /no line like/)
})

test('a digest has the size that its MD5 sum draws, of at least 32 bytes', () => {
  // The sums begin with 4124bc0a9335 and 21ad0bd836b9.
  const { sizes } = parseTrace(uris, [1, 100, 200, 300, 400, 500, 600])
  assert.deepEqual(sizes, [
    [1, 100, 200, 300, 400, 500, 600][0x4124bc0a9335 % 7],
    [1, 100, 200, 300, 400, 500, 600][0x21ad0bd836b9 % 7],
  ])
  assert.deepEqual(parseTrace(uris, [1]).sizes, [32, 32])
})

test("the sizes of a log's blobs are read by the names of its columns, each blob once", () => {
  const log = 'x,http.request.uri,http.response.written\n0,v2/a/blobs/1,70.0\n1,v2/b/blobs/2,50\n2,v2/c/blobs/1,70.0\n'
  assert.deepEqual(parseSizes(`${log}3,v2/a/manifests/latest,9\n`), [50, 70])
  assert.throws(() => parseSizes('uri,bytes\nv2/a/blobs/1,70\n'), /no columns/)
})

test('a file may be compressed, whatever it is called', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-trace-'))
  try {
    for (const compress of [Buffer.from, gzipSync, zstdCompressSync] as const) {
      await writeFile(join(folder, 'trace'), compress(uris))
      assert.equal(await readText(join(folder, 'trace')), uris)
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('halves are all of a trace, and each has its own blobs only', () => {
  const trace = generateTrace(2001, 1)
  const [first, second] = [halfOf(trace, 'first'), halfOf(trace, 'second')]
  const asked = (of: typeof trace) => of.requests.map(({ blob }) => `${of.digests[blob]} ${of.sizes[blob]}`)
  assert.deepEqual([...asked(first), ...asked(second)], asked(trace))
  assert.equal(second.digests.length, new Set(second.requests.map(({ blob }) => blob)).size)
  assert.ok(uniqueBytesOf(first) < uniqueBytesOf(trace))
})

test("a trace that is made up has the published one's skew and sizes", () => {
  const { digests, sizes, requests } = generateTrace(100_000, 1)
  const counts = new Array<number>(digests.length).fill(0)
  for (const { blob } of requests) counts[blob]!++
  counts.sort((a, b) => b - a)
  const near = (actual: number, published: number, tolerance: number, what: string) =>
    assert.ok(Math.abs(actual - published) <= tolerance, `${what}: ${actual} instead of ${published}`)
  near(requests.length, 100_000, 0, 'requests')
  for (const [percent, published] of [
    [0.1, 0.319],
    [1, 0.44],
    [5, 0.552],
    [10, 0.624],
    [20, 0.712],
    [50, 0.843],
  ] as const) {
    const top = counts.slice(0, Math.round((percent / 100) * counts.length))
    near(top.reduce((sum, count) => sum + count, 0) / requests.length, published, 0.005, `the top ${percent} %`)
  }
  near(counts.filter(count => count === 1).length / counts.length, 0.68, 0.01, 'asked for once')
  const sorted = sizes.toSorted((a, b) => a - b)
  for (const [percent, published] of [
    [10, 215],
    [50, 14_700],
    [75, 5.3e6],
    [90, 31e6],
    [99, 137e6],
    [100, 690e6],
  ] as const)
    near(sorted[Math.ceil((percent / 100) * sizes.length) - 1]! / published, 1, 0.15, `the size of ${percent} %`)
})

test('the same seed makes the same trace up, another one another', () => {
  assert.deepEqual(generateTrace(1000, 7), generateTrace(1000, 7))
  assert.notDeepEqual(generateTrace(1000, 7).requests, generateTrace(1000, 8).requests)
})

test('arguments are understood, or what is wrong with them is said', () => {
  const { source, capacities, peers, wrong } = parseSettings([
    '--capacity',
    '1%,0.5%',
    '--peers',
    '1,20',
    '--wrong',
    '30%',
  ])
  assert.deepEqual(
    { source, capacities, peers, wrong },
    {
      source: { requests: 50_000 },
      capacities: [0.01, 0.005],
      peers: [1, 20],
      wrong: 0.3,
    },
  )
  for (const [args, remedy] of [
    [['--capacity', '5'], /a share like 5%/],
    [['--capacity', '0%'], /a share like 5%/],
    [['--peers', '0'], /a whole number from 1/],
    [['--requests', 'many'], /a whole number from 1000/],
    [['--trace', 'file'], /name both files/],
    [['--trace', 'a', '--sizes', 'b', '--requests', '5000'], /leave it out/],
    [['--half', 'third'], /first, second or both/],
    [['--policies'], /there are --trace/],
  ] as const)
    assert.throws(
      () => parseSettings(args),
      (error: unknown) => error instanceof SettingsError && remedy.test(error.message),
      args.join(' '),
    )
})

test.run()
