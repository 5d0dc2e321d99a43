import type { Digest } from '@shoal/oci/digest'
import { tuning } from '@shoal/swarm/spread/tuning'
import { Chance } from './chance.ts'
import type { Download } from './download.ts'
import { type Lie, lies } from './liar.ts'
import type { Machine } from './machine.ts'
import { type Blame, Office } from './office.ts'
import { digestOf } from './scenario.ts'

/** What became of a random schedule. */
export type Fate = {
  /** What should never have happened. */
  readonly faults: readonly string[]
  /** What did happen, to be read. */
  readonly story: readonly string[]
}

/** When all must be well at the latest, after the last thing has happened, in ms. */
const longest = 180_000

/** How long two may fetch the same, in ms, and how often that is looked at. */
const longestBoth = 3000
const lookEvery = 250

/** Small chunks make short runs. */
const chunk = 128 * 1024

/** Plays a schedule of deaths, sleeps, partitions, lies, and machines that come late, as the seed will have it. */
export function fateOf(seed: number): Fate {
  return new Schedule(seed).play()
}

class Schedule {
  readonly #chance: Chance
  readonly #office: Office
  readonly #machines: Machine[] = []
  readonly #downloads = new Map<Machine, Download>()
  readonly #digest: Digest
  readonly #size: number
  readonly #story: string[] = []
  readonly #faults: string[] = []
  /** How long two have fetched the same by now, in ms. */
  readonly #both = new Map<string, number>()
  #lastEvent = 0

  constructor(seed: number) {
    this.#chance = new Chance(seed)
    this.#office = new Office({ seed: seed + 1, line: this.#chance.pick([10, 20, 100, 1000]) })
    this.#digest = digestOf(`schedule ${seed}`)
    // Some are one chunk.
    this.#size = this.#chance.below(8) === 0 ? 500_000 : Math.floor(chunk * this.#chance.between(8.5, 64))
    const count = 3 + this.#chance.below(18)
    const liars = this.#chance.below(2) === 0 ? 0 : this.#chance.below(Math.floor(count / 3) + 1)
    const options = { ...tuning, mates: this.#chance.pick([4, tuning.mates]), leastChunk: chunk, fewChunks: 64 }
    for (let i = 0; i < count; i++) {
      const isSlow = this.#chance.below(8) === 0
      const rate = this.#chance.pick([100, 100, 1000]) / (isSlow ? 10 : 1)
      const lie: Lie | undefined = i < liars ? this.#chance.pick(lies) : undefined
      this.#machines.push(
        this.#office.add(`m${i}`, {
          upload: rate,
          download: rate,
          gives: this.#chance.below(10) > 0,
          line: lie !== undefined || i === liars || this.#chance.below(8) > 0,
          tuning: options,
          ...(lie && { lie }),
        }),
      )
    }
    this.#story.push(`${count} machines, ${liars} liars: ${this.#machines.map(m => m.liar?.lie ?? '').join(' ')}`)
    this.#story.push(`${this.#size} bytes, line ${this.#office.line.capacity / 125} Mbit/s`)
  }

  play(): Fate {
    const { events } = this.#office
    for (const machine of this.#chance.shuffled(this.#machines)) {
      const late = this.#chance.below(3) === 0 ? this.#chance.between(0, 8000) : this.#chance.between(0, 20)
      events.at(late, () => this.#begin(machine))
    }
    const happenings = this.#chance.below(4)
    for (let i = 0; i < happenings; i++) events.at(this.#chance.between(0, 6000), () => this.#happen())
    const look = () => {
      this.#lookForTwo()
      events.after(lookEvery, look)
    }
    look()
    events.run(9000)
    const end = Math.max(this.#lastEvent, 9000) + longest
    events.run(end, () => this.#over)
    if (!this.#over)
      for (const machine of this.#honest)
        if (this.#canEnd(machine) && !this.#downloads.get(machine)?.whole)
          this.#faults.push(`${machine.id} has ${this.#downloads.get(machine)?.count} chunks and does not end`)
    this.#lookForBlame()
    if (this.#faults.length > 0)
      for (const machine of this.#machines) this.#story.push(`at the end: ${this.#stateOf(machine)}`)
    return { faults: this.#faults, story: this.#story }
  }

  get #honest(): Machine[] {
    return this.#machines.filter(({ liar, dead }) => !liar && !dead)
  }

  get #over(): boolean {
    return this.#honest.every(machine => this.#downloads.get(machine)?.whole || !this.#canEnd(machine))
  }

  /** Whether there is a way to the content: a line, or an honest peer that has one, or has all. */
  #canEnd(machine: Machine): boolean {
    if (machine.line) return true
    return this.#honest.some(
      other => other.gives && machine.peers.has(other.id) && (other.line || this.#downloads.get(other)?.whole === true),
    )
  }

  #begin(machine: Machine): void {
    if (machine.dead || this.#downloads.has(machine)) return
    machine.run(() => {
      if (this.#downloads.has(machine)) return
      this.#tell(`${machine.id} begins`)
      this.#downloads.set(machine, machine.want(this.#digest, this.#size))
    })
  }

  #stateOf(machine: Machine): string {
    const { id, gives, line, dead, liar, uplink, peers, banned } = machine
    const download = this.#downloads.get(machine)
    const parts = [id, `${uplink.capacity / 125} Mbit/s`]
    if (liar) parts.push(`lies: ${liar.lie}`)
    if (dead) parts.push('dead')
    if (!gives) parts.push('gives nothing')
    if (!line) parts.push('has no line')
    if (download)
      parts.push(download.whole ? 'has all' : `has ${download.count}, is to fetch ${download.asked?.total ?? 0}`)
    if (download && download.failures > 0) parts.push(`failed ${download.failures} times`)
    parts.push(`is connected to ${[...peers].join(' ')}`)
    if (banned.size > 0) parts.push(`bans ${[...banned].join(' ')}`)
    return parts.join(', ')
  }

  #tell(what: string): void {
    this.#story.push(`${this.#office.events.now.toFixed(0).padStart(6)} ${what}`)
  }

  #happen(): void {
    const { events } = this.#office
    const chance = this.#chance
    const seenAfter = () => chance.between(0, 3000)
    const machine = this.#pickMachine()
    this.#lastEvent = events.now
    const later = (then: () => void) => {
      events.after(chance.between(200, 9000), () => {
        this.#lastEvent = events.now
        then()
      })
    }
    const kind = chance.below(5)
    if (kind === 0) {
      this.#tell(`${machine.id} dies`)
      const seen = chance.below(2) === 0
      machine.die(seen ? () => 0 : seenAfter)
    } else if (kind === 1) {
      this.#tell(`${machine.id} sleeps`)
      machine.sleep(seenAfter)
      later(() => {
        this.#tell(`${machine.id} wakes`)
        machine.wake(() => chance.between(0, 500))
      })
    } else if (kind === 2) {
      this.#tell(`${machine.id} loses its line`)
      machine.line = false
      machine.flowsChanged()
      later(() => {
        this.#tell(`${machine.id} has its line again`)
        machine.line = true
        machine.flowsChanged()
      })
    } else if (kind === 3) {
      const sides = new Map(this.#machines.map(each => [each, chance.below(2)]))
      this.#tell(`the LAN splits: ${[...sides].map(([{ id }, side]) => `${id} ${side}`).join(', ')}`)
      this.#office.arrange(each => sides.get(each)!, seenAfter)
      later(() => {
        this.#tell('the LAN heals')
        this.#office.arrange(
          () => 0,
          () => chance.between(0, 500),
        )
      })
    } else {
      this.#tell(`${machine.id} closes and begins anew`)
      const download = this.#downloads.get(machine)
      if (download && !download.whole) download.again()
    }
  }

  /** Often the one that fetches, as that is where it hurts. */
  #pickMachine(): Machine {
    const fetchers = this.#machines.filter(each => this.#downloads.get(each)?.streaming)
    return this.#chance.below(2) === 0 && fetchers.length > 0
      ? this.#chance.pick(fetchers)
      : this.#chance.pick(this.#machines)
  }

  /** Looks for two who are connected, and fetch the same over the line. */
  #lookForTwo(): void {
    // A coordinator that lies may set all on at once.
    if (this.#machines.some(({ liar }) => liar)) return
    const now = new Set<string>()
    const fetchers = this.#honest.filter(each => each.gives && each.up && this.#downloads.get(each)?.streaming)
    for (const [i, one] of fetchers.entries())
      for (const two of fetchers.slice(i + 1)) {
        const [a, b] = [this.#downloads.get(one)!.asked, this.#downloads.get(two)!.asked]
        if (!one.peers.has(two.id) || one.cut.has(two.id) || !a || !b) continue
        let overlaps = false
        for (const index of a) overlaps ||= b.has(index)
        if (overlaps) now.add(`${one.id} and ${two.id}`)
      }
    for (const pair of this.#both.keys()) if (!now.has(pair)) this.#both.delete(pair)
    for (const pair of now) {
      const time = (this.#both.get(pair) ?? 0) + lookEvery
      this.#both.set(pair, time)
      if (time > longestBoth && time <= longestBoth + lookEvery) {
        this.#tell(`${pair} fetch the same`)
        this.#faults.push(`${pair} fetch the same for ${time} ms`)
      }
    }
  }

  #lookForBlame(): void {
    const { blames, machines } = this.#office
    const honest = (id: string) => machines.get(id)?.liar === undefined
    for (const { by, whom, reason, at } of blames)
      if (honest(by) && honest(whom)) this.#faults.push(`${by} blames ${whom} at ${at.toFixed(0)}: ${reason}`)
    const isBlamed = (by: string, whom: string) => blames.some((blame: Blame) => blame.by === by && blame.whom === whom)
    const isAuthor = (id: string) => ['hashes', 'two'].includes(machines.get(id)?.liar?.lie ?? '')
    // Who was caught may have gone before it could be asked, who has begun anew has forgotten it, and who has found out
    // another that told hashes may have nothing left to compare with.
    for (const machine of this.#honest)
      for (const whom of machine.caught)
        if (
          !isBlamed(machine.id, whom) &&
          machine.stays(whom) &&
          this.#downloads.get(machine)?.begins === 1 &&
          !blames.some(blame => blame.by === machine.id && isAuthor(blame.whom))
        )
          this.#faults.push(`${machine.id} has caught ${whom} and does not blame it`)
    for (const download of this.#downloads.values())
      if (download.whole && download.wrong) this.#faults.push('something wrong was taken for right')
  }
}
