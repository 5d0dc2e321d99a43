import { test } from 'uvu'
import { testUnless, whyNot } from '../prerequisites.ts'
import { ContainersStorage } from './containers-storage.ts'
import { testPulls } from './pulls.ts'

testPulls(testUnless(whyNot(['buildah'], 'buildah')), 'Buildah', shoal => ContainersStorage.open('buildah', shoal))

test.run()
