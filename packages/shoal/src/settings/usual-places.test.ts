import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { homeOf } from './usual-places.ts'

const passwd = () => 'root:x:0:0:root:/root:/bin/bash\nana:x:1000:1000:Ana,,,:/home/ana:/bin/sh\n'
const name = process.platform === 'win32' ? 'USERPROFILE' : 'HOME'

test('under sudo the home folder is that of who called it', () => {
  for (const [env, home] of [
    [{ SUDO_USER: 'ana', [name]: '/root' }, '/home/ana'],
    [{ SUDO_USER: 'ana' }, '/home/ana'],
    // sudo -E, and users that are kept elsewhere, such as in LDAP.
    [{ SUDO_USER: 'ana', [name]: '/srv/ana' }, '/srv/ana'],
    [{ SUDO_USER: 'bob', [name]: '/root' }, '/root'],
    [{ SUDO_USER: 'root', [name]: '/root' }, '/root'],
    [{ [name]: '/root' }, '/root'],
  ] as const)
    assert.is(homeOf(env, { uid: 0, passwd }), home, JSON.stringify(env))
  const unreadable = () => {
    throw new Error('ENOENT')
  }
  assert.is(homeOf({ SUDO_USER: 'ana', [name]: '/root' }, { uid: 0, passwd: unreadable }), '/root')
})

test('for anybody but root SUDO_USER means nothing', () => {
  for (const uid of [1000, undefined])
    assert.is(homeOf({ SUDO_USER: 'ana', [name]: '/root' }, { uid, passwd }), '/root')
})

test.run()
