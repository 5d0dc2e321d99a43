import { SpecError } from '@shoal/oci/spec-error'
import { SourceError } from '@shoal/store/source'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { isOwnHost, notFound, registryOf, toolOf } from './client-rules.ts'
import { NowhereError } from './filling.ts'

test('whatever was the matter upstream, a client is told 404, and why', () => {
  const denied = new SourceError('denied', 'hub denies access to library/x (401)')
  const why = new NowhereError([
    { source: 'mirror.gcr.io', error: undefined },
    { source: 'hub', error: denied },
  ])
  const error = notFound('BLOB_UNKNOWN', why)
  assert.is(error.status, 404)
  assert.is(error.code, 'BLOB_UNKNOWN')
  assert.match(error.message, 'mirror.gcr.io does not have it; hub denies access')
})

test('a request is for Docker Hub unless it names another registry that the settings have', () => {
  const mirrors = (registry: string) => ['docker.io', 'registry.office:5000', '[::1]:5000'].includes(registry)
  for (const ns of [null, '', 'docker.io', 'index.docker.io', 'registry-1.docker.io', 'DOCKER.IO'])
    assert.is(registryOf(ns, mirrors), 'docker.io', String(ns))
  assert.is(registryOf('Registry.office:5000', mirrors), 'registry.office:5000')
  assert.is(registryOf('[::1]:5000', mirrors), '[::1]:5000')
})

test('a registry that the settings do not have is for nobody here, and it is said how that can be changed', () => {
  const none = () => false
  const names = ['quay.io', 'docker.io.evil.example', 'docker.io/x', '..', '169.254.169.254', 'x'.repeat(5000)]
  for (const ns of [...names, 'registry.office', '\r\nx', '__proto__', 'constructor'])
    assert.throws(
      () => registryOf(ns, none),
      (error: unknown) =>
        error instanceof SpecError &&
        error.code === 'NAME_UNKNOWN' &&
        error.status === 404 &&
        error.message.length < 300,
      ns,
    )
  assert.throws(() => registryOf('quay.io', none), '[upstreams."quay.io"]')
})

test('hosts by which clients reach this machine', () => {
  const hosts = [
    ...['127.0.0.1:3474', '127.0.0.1', '[::1]:3474', '[::1]', '192.168.1.5:3474', 'localhost', 'LOCALHOST:3474'],
    ...['localhost.', 'shoal.localhost', 'host.docker.internal:3474', 'host.containers.internal', 'host.lima.internal'],
    ...['desk-7', 'desk-7.corp.example', 'desk-7.corp.example.local', 'Desk-7.corp.example:80'],
  ]
  for (const host of hosts) assert.ok(isOwnHost(host, 'desk-7.corp.example'), host)
})

test('hosts of pages that were loaded from elsewhere', () => {
  const hosts = [
    ...['', ':3474', 'evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', 'xlocalhost', 'corp.example'],
    ...['desk-7.evil.example', '[::1].evil.example', '127.0.0.1@evil.example', 'evil.example#localhost', '127.1'],
  ]
  for (const host of hosts) assert.not(isOwnHost(host, 'desk-7.corp.example'), host)
  assert.not(isOwnHost(undefined))
})

test('the tool behind a request', () => {
  assert.is(toolOf('docker/29.0.0 go/go1.25 kernel/6.1 os/linux UpstreamClient(x)'), 'docker')
  assert.is(toolOf('containerd/v2.1.0'), 'containerd')
  assert.is(toolOf('containers/5.36 (github.com/containers/image)'), 'podman')
  assert.is(toolOf('Buildkit/v0.20'), 'buildkit')
  for (const odd of [undefined, '', '<script>', '"']) assert.is(toolOf(odd), 'unknown')
  assert.is(toolOf('x'.repeat(5000)).length, 40)
})

test.run()
