import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createToken, networkOf, openNetwork, TokenError } from './network.ts'

test('a token leads all who have it to one network, and two tokens to two', () => {
  const token = createToken()
  assert.equal(networkOf(token), networkOf(`  ${token}\n`))
  assert.is.not(networkOf(token).name, networkOf(createToken()).name)
  assert.match(networkOf(token).name, /^private:[0-9a-f]{8}$/)
})

test('what a network encrypts with is not what it marks announcements with, and neither is in its name', () => {
  const { psk, markKey, name } = networkOf(createToken())
  const hex = markKey.toString('hex')
  assert.not.match(String(psk), hex)
  const fingerprint = name.slice('private:'.length)
  assert.not.match(hex, fingerprint)
  assert.not.match(String(psk), fingerprint)
})

test('the open network encrypts with nothing that a stranger would have to know', () => {
  assert.is(openNetwork.psk, undefined)
  assert.is(openNetwork.markKey.length, 32)
})

test('a token with a letter changed, left out or added is refused', () => {
  const token = createToken()
  const changed = token.slice(0, 12) + (token[12] === 'A' ? 'B' : 'A') + token.slice(13)
  for (const wrong of [changed, token.slice(0, -1), `${token}A`, token.slice(6), '', 'shoal-', `x${token}`])
    assert.throws(
      () => networkOf(wrong),
      (error: unknown) => error instanceof TokenError,
    )
})

test.run()
