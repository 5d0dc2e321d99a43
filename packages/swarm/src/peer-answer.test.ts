import type { ByteRange } from '@shoal/oci/byte-range'
import { SourceError } from '@shoal/store/source'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { PeerViolation, parsePeerAnswer } from './peer-answer.ts'

const range = { start: 100, end: 200 }
const parse = (lines: readonly string[], wanted?: ByteRange) => parsePeerAnswer(lines.join('\r\n'), wanted)

test('bytes, all of them or a range', () => {
  assert.equal(parse(['HTTP/1.1 200 OK', 'Content-Length: 12', 'content-type:text/plain ']), {
    says: { status: 200, size: 12, start: 0, length: 12, contentType: 'text/plain' },
    length: 12,
    last: false,
  })
  const given = ['HTTP/1.1 206 ', 'content-length: 100', 'content-range: bytes 100-199/1000', 'connection: close']
  assert.equal(parse(given, range), {
    says: { status: 206, size: 1000, start: 100, length: 100, contentType: undefined },
    length: 100,
    last: true,
  })
  const clipped = ['HTTP/1.1 206 Partial', 'content-length: 50', 'content-range: bytes 100-149/150']
  assert.equal(parse(clipped, range).length, 50)
})

test('why there are none', () => {
  assert.equal(parse(['HTTP/1.1 404 Not Found', 'content-length: 0']).says, { status: 404 })
  for (const refusal of ['busy', 'resting'])
    assert.equal(parse(['HTTP/1.1 503 X', 'content-length: 3', `shoal-refusal: ${refusal}`]).says, {
      status: 503,
      refusal,
    })
  const short = ['HTTP/1.1 416 X', 'content-length: 0', 'content-range: bytes */100']
  assert.equal(parse(short, range).says, { status: 416, size: 100 })
})

test('that something went wrong there is no violation', () => {
  for (const status of [500, 502, 503])
    try {
      parse([`HTTP/1.1 ${status} X`, 'content-length: 0'])
      assert.unreachable()
    } catch (error) {
      assert.instance(error, SourceError)
      assert.not.instance(error, PeerViolation)
      assert.is((error as SourceError).code, 'failing')
    }
})

test('what no peer answers is a violation', () => {
  const part = 'HTTP/1.1 206 Partial'
  const table: [string[], ByteRange?][] = [
    [['']],
    [['SSH-2.0-OpenSSH']],
    [['HTTP/1.0 200 OK', 'content-length: 1']],
    [['HTTP/1.1 200 OK']],
    [['HTTP/1.1 200 OK', 'content-length: -1']],
    [['HTTP/1.1 200 OK', 'content-length: 1e3']],
    [['HTTP/1.1 200 OK', 'content-length: 99999999999999999999']],
    [['HTTP/1.1 200 OK', 'content-length: 1', 'content-length: 2']],
    [['HTTP/1.1 200 OK', 'content-length: 1', 'transfer-encoding: chunked']],
    [['HTTP/1.1 200 OK', 'content-length: 1', ' folded']],
    [['HTTP/1.1 200 OK', 'content-length : 1']],
    [['HTTP/1.1 200 OK', 'content-length: 100'], range],
    [[part, 'content-length: 100', 'content-range: bytes 100-199/1000']],
    [[part, 'content-length: 100'], range],
    [[part, 'content-length: 100', 'content-range: bytes 100-199/*'], range],
    [[part, 'content-length: 100', 'content-range: bytes 0-99/1000'], range],
    [[part, 'content-length: 99', 'content-range: bytes 100-198/1000'], range],
    [[part, 'content-length: 101', 'content-range: bytes 100-199/1000'], range],
    [[part, 'content-length: 100', 'content-range: bytes 100-199/1000', 'content-range: bytes 100-199/1000'], range],
    [['HTTP/1.1 416 X', 'content-length: 0'], range],
    [['HTTP/1.1 416 X', 'content-length: 0', 'content-range: bytes */1000'], range],
    [['HTTP/1.1 416 X', 'content-length: 0', 'content-range: bytes */0']],
    [['HTTP/1.1 404 X', 'content-length: 1000000']],
    [['HTTP/1.1 302 X', 'content-length: 0', 'location: https://elsewhere/']],
    [['HTTP/1.1 100 Continue', 'content-length: 0']],
  ]
  for (const [lines, wanted] of table)
    try {
      parse(lines, wanted)
      assert.unreachable(lines.join('; '))
    } catch (error) {
      assert.instance(error, PeerViolation, lines.join('; '))
    }
})

test.run()
