import { test } from 'uvu'
import { testUnless, whyNot } from '../prerequisites.ts'
import { ContainersStorage } from './containers-storage.ts'
import { testPulls } from './pulls.ts'

testPulls(testUnless(whyNot(['podman'], 'podman')), 'Podman', shoal => ContainersStorage.open('podman', shoal))

test.run()
