import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { whyNoLan } from '../lan/lan-world.ts'
import { Office } from '../lan/office.ts'
import { assertAllGot, assertOneDownload, layers, sizeOf } from '../lan/one-download.ts'
import { testUnless } from '../prerequisites.ts'

const lanTest = testUnless(whyNoLan())

const rates = { line: 20e6, link: 20e6 }
let office: Office
let opened: Promise<void> | undefined

async function open(): Promise<void> {
  office = await Office.open(8, rates)
  await office.start()
}

test.before.each(async () => {
  await (opened ??= open())
  await office.shape(rates)
  await office.meet()
})

test.after(async () => office?.[Symbol.asyncDispose]())

lanTest('an office pulls what none of them has, all at once', async () => {
  const image = await office.addImage('cold', layers(4, 12e6))
  assertAllGot(await office.rush({ image }))
  await assertOneDownload(office, image)
})

lanTest('an office pulls an image of many small layers', async () => {
  const image = await office.addImage('many-layers', [...layers(4, 4e6), ...layers(36, 2e6)])
  assertAllGot(await office.rush({ image, parallel: 6 }))
  await assertOneDownload(office, image)
})

lanTest('an office pulls what one of them has', async () => {
  const image = await office.addImage('seeded', layers(4, 12e6))
  const [first, ...others] = office.hosts
  assert.ok(first)
  assertAllGot(await office.rush({ image, hosts: [first] }))
  await office.hearOf(first.shoals[0]!)
  assertAllGot(await office.rush({ image, hosts: others }))
  await assertOneDownload(office, image)
})

lanTest('an office pulls one after another, faster than one download takes', async () => {
  const image = await office.addImage('staggered', layers(4, 12e6))
  assertAllGot(await office.rush({ image, within: 2 }))
  await assertOneDownload(office, image)
})

lanTest('a host at a tenth of the speed gets it as well, after all others', async () => {
  const image = await office.addImage('tenth', layers(4, 6e6))
  const [slow] = office.hosts
  assert.ok(slow)
  await slow.shape({ rate: `${rates.link / 10}bit` })
  const pulled = await office.rush({ image })
  assertAllGot(pulled)
  const last = pulled.reduce((latest, each) => (each.ended > latest.ended ? each : latest))
  assert.is(last.host.name, slow.name)
  // Upstream helps who gets little from peers: why that is so, it cannot know.
  await assertOneDownload(office, image, { anew: sizeOf(image) })
})

lanTest('an office with a line that is slower than its network pulls', async () => {
  const image = await office.addImage('slow-line', layers(4, 4e6))
  await office.shape({ line: 10e6, link: 500e6 })
  assertAllGot(await office.rush({ image }))
  await assertOneDownload(office, image)
})

lanTest('an office with a network that is slower than its line pulls', async () => {
  const image = await office.addImage('slow-lan', layers(4, 6e6))
  await office.shape({ line: 100e6, link: 20e6 })
  assertAllGot(await office.rush({ image }))
  await assertOneDownload(office, image)
})

lanTest('an office of sixteen pulls what none of them has, all at once', async () => {
  await office.add(16 - office.hosts.length)
  await office.start()
  await office.meet()
  const image = await office.addImage('sixteen', layers(4, 8e6))
  assertAllGot(await office.rush({ image }))
  await assertOneDownload(office, image)
})

test.run()
