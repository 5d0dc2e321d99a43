import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { dockerHub, formatName, NameError, parseFullName, parseName, parseRegistry } from './name.ts'

const isNameError = (error: unknown) => error instanceof NameError && error.code === 'NAME_INVALID'

test('a registry keeps its port and loses its upper case', () => {
  assert.is(parseRegistry('GHCR.io'), 'ghcr.io')
  assert.is(parseRegistry('localhost:5000'), 'localhost:5000')
  assert.is(parseRegistry('registry'), 'registry')
  assert.is(parseRegistry('192.168.0.2:25000'), '192.168.0.2:25000')
  assert.is(parseRegistry('[2001:DB8::1]:5000'), '[2001:db8::1]:5000')
  assert.is(parseRegistry('[::1]'), '[::1]')
  assert.is(parseRegistry('xn--n3h.com:18080'), 'xn--n3h.com:18080')
})

test("Docker Hub's aliases are Docker Hub", () => {
  for (const alias of ['docker.io', 'index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com', 'DOCKER.IO'])
    assert.equal(parseName(alias, 'nginx'), { registry: dockerHub, repository: 'library/nginx' })
})

test('only the one-part names of Docker Hub are library images', () => {
  assert.is(parseName('docker.io', 'grafana/loki').repository, 'grafana/loki')
  assert.is(parseName('docker.io', 'library/nginx').repository, 'library/nginx')
  assert.is(parseName('quay.io', 'nginx').repository, 'nginx')
  assert.is(parseName('docker.io:443', 'nginx').repository, 'nginx')
})

test('what is no host is refused', () => {
  const bad = [
    '',
    ' ghcr.io',
    'ghcr.io\n',
    'a b',
    'a_b.com',
    '-a.com',
    'a-.com',
    'a..b',
    'a.com.',
    '.a.com',
    'a.com:',
    'a.com:x',
    'a.com:80:80',
    'a.com:123456',
    'user@a.com',
    'https://a.com',
    'a.com/b',
    'a.com?b',
    'a.com#b',
    'fc00::1',
    '[fe80::1%eth0]',
    '[2001:db8:3:4::192.0.2.33]',
    '[]',
    '[::1',
    'a'.repeat(256),
  ]
  for (const host of bad) assert.throws(() => parseRegistry(host), isNameError, host)
})

test('a host that no URL can have is refused', () => {
  for (const host of ['a.com:65536', 'a.com:99999', '[:]', '[:::]', '[1:2:3:4:5:6:7:8:9]', '256.1.1.1', '1.2.3.4.5'])
    assert.throws(() => parseRegistry(host), isNameError, host)
})

test('letters that only look like ASCII once they are in lower case do not make another registry', () => {
  assert.is('doc\u212Aer.io'.toLowerCase(), 'docker.io')
  assert.throws(() => parseRegistry('doc\u212Aer.io'), isNameError)
})

test('a registry that is accepted is a host for a URL, and is read back as itself', () => {
  const label = fc.stringMatching(/^[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?$/)
  const host = fc
    .tuple(
      fc.oneof(
        fc.array(label, { minLength: 1, maxLength: 4 }).map(labels => labels.join('.')),
        fc.ipV4(),
        fc.ipV6().map(ip => `[${ip}]`),
        fc.string({ unit: fc.constantFrom(...'aZ0.-:[]_/'), maxLength: 12 }),
      ),
      fc.option(fc.nat(70000)),
    )
    .map(([name, port]) => (port === null ? name : `${name}:${port}`))
  fc.assert(
    fc.property(host, text => {
      let registry: string
      try {
        registry = parseRegistry(text)
      } catch (error) {
        assert.ok(isNameError(error))
        return
      }
      assert.is(parseRegistry(registry), registry)
      const url = new URL(`https://${registry}/v2/`)
      assert.is(url.pathname + url.search + url.hash + url.username, '/v2/')
    }),
  )
})

test('repository names follow the grammar of the distribution-spec', () => {
  for (const path of ['a', 'a/b/c', 'a.b', 'a_b', 'a__b', 'a-b', 'a---b', '0', 'a-b_c__d.e/f--g', 'xn--n3h.com/a'])
    assert.is(parseName('ghcr.io', path).repository, path)
  const bad = ['', '/', 'A', 'a/', '/a', 'a//b', '-a', 'a-', '_a', 'a_', '.a', 'a.', 'a..b', 'a___b', 'a._b', 'a-.b']
  for (const path of [...bad, 'a b', 'a:b', 'a@b', 'a\n', 'é', '../a', 'a/../b', 'a%2fb', '____/____'])
    assert.throws(() => parseName('ghcr.io', path), isNameError, path)
})

test('a repository name has at most 255 characters, with the library/ that Docker Hub adds', () => {
  assert.is(parseName('ghcr.io', 'a'.repeat(255)).repository.length, 255)
  assert.throws(() => parseName('ghcr.io', 'a'.repeat(256)), isNameError)
  assert.is(parseName('docker.io', 'a'.repeat(247)).repository.length, 255)
  assert.throws(() => parseName('docker.io', 'a'.repeat(248)), isNameError)
})

test('long hostile names are refused with a short error', () => {
  for (const text of [
    `${'a-'.repeat(1e6)}!`,
    `${'a/'.repeat(120)}!`,
    'a'.repeat(254),
    `${'-'.repeat(253)}!`,
    '['.repeat(1e6),
  ]) {
    for (const parse of [() => parseName('ghcr.io', `${text}!`), () => parseRegistry(`${text}!`)])
      assert.throws(parse, (error: unknown) => isNameError(error) && (error as Error).message.length < 200)
  }
})

test('a formatted name is the registry and the whole path', () => {
  assert.is(formatName(parseName('docker.io', 'nginx')), 'docker.io/library/nginx')
  assert.is(formatName(parseName('GHCR.io:443', 'a/b')), 'ghcr.io:443/a/b')
})

test('what was formatted is read again, and what has no registry is none', () => {
  for (const text of ['docker.io/library/nginx', 'ghcr.io:443/a/b']) assert.is(formatName(parseFullName(text)), text)
  for (const text of ['', 'nginx', '/nginx', 'docker.io/', 'docker.io/../etc'])
    assert.throws(() => parseFullName(text), isNameError, text)
})

test.run()
