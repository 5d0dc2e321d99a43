import { hash } from 'bcryptjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Users, UsersError } from './users.ts'

const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`

test('a user of the file is admitted with the right password only, again and again', async () => {
  const users = new Users(`# office\n\nada:${await hash('a:b', 4)}\n`)
  assert.ok(await users.admit(basic('ada', 'a:b')))
  assert.ok(await users.admit(basic('ada', 'a:b')))
  assert.not(await users.admit(basic('ada', 'a')))
  assert.not(await users.admit(basic('bob', 'a:b')))
  assert.not(await users.admit(undefined))
  assert.not(await users.admit('Bearer x'))
})

test('a file with other hashes, or none, is refused', () => {
  assert.throws(
    () => new Users('ada:$apr1$x$y'),
    (error: unknown) => error instanceof UsersError,
  )
  assert.throws(
    () => new Users('\n'),
    (error: unknown) => error instanceof UsersError,
  )
})

test.run()
