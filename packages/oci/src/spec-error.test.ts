import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SpecError, type SpecErrorCode } from './spec-error.ts'

// Lone surrogates included.
const anyText = fc.string({ unit: fc.nat(0xffff).map(code => String.fromCharCode(code)) })

const expected: Record<SpecErrorCode, number> = {
  BLOB_UNKNOWN: 404,
  DIGEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  TOOMANYREQUESTS: 429,
  UNAVAILABLE: 503,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
}

test('each code has its status', () => {
  for (const [code, status] of Object.entries(expected)) {
    const error = new SpecError(code as SpecErrorCode, 'why')
    assert.is(error.status, status, code)
    assert.is(error.code, code)
    assert.is(error.message, 'why')
    assert.instance(error, Error)
  }
})

test('a status that is given replaces the usual one', () => {
  assert.is(new SpecError('UNKNOWN', 'bad gateway', 502).status, 502)
})

test('the body is the JSON of the distribution-spec, whatever the message', () => {
  fc.assert(
    fc.property(anyText, fc.constantFrom(...(Object.keys(expected) as SpecErrorCode[])), (message, code) => {
      const sent = new TextEncoder().encode(new SpecError(code, message).body())
      assert.equal(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(sent)), {
        errors: [{ code, message }],
      })
    }),
  )
  assert.is(
    new SpecError('BLOB_UNKNOWN', 'lone \ud800').body(),
    '{"errors":[{"code":"BLOB_UNKNOWN","message":"lone \\ud800"}]}',
  )
})

test.run()
