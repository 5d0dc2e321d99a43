import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { formatBits, parseBits } from './chunk-bits.ts'
import { ChunkSet } from './spread/chunks.ts'

test('what a machine has is the same on the other side', () => {
  const set = new ChunkSet(21, [
    [0, 3],
    [8, 9],
    [20, 21],
  ])
  assert.equal([...set.bits], [0b111, 0b1, 0b10000])
  const header = formatBits(set.bits)
  assert.is(header, 'BwEQ')
  assert.equal([...new ChunkSet(21, [[1, 2]]).lackingOf(parseBits(header)!)], [0, 2, 8, 20])
})

test('chunks beyond the end of a blob are none', () => {
  assert.equal([...new ChunkSet(3).lackingOf(Buffer.from([0xff, 0xff]))], [0, 1, 2])
  assert.equal([...new ChunkSet(12).lackingOf(Buffer.from([0x80]))], [7])
})

test('what is no list, or too long a one, says nothing', () => {
  for (const header of [undefined, '', 'a b', 'Bw==', 'é', 'B'.repeat(6000)]) assert.is(parseBits(header), undefined)
  assert.is(formatBits(new Uint8Array(4097)), undefined)
  assert.is(parseBits(formatBits(new Uint8Array(4096)))?.length, 4096)
})

test.run()
