import { Chance } from './chance.ts'
import { Events } from './events.ts'
import { Flows, Link } from './flows.ts'
import { Machine, type MachineOptions } from './machine.ts'

/** Of the network; times in ms, rates in Mbit/s. */
export type OfficeOptions = {
  readonly seed: number
  /** @default 100 */
  readonly line?: number
  /** What a CDN gives to one connection at most. @default all */
  readonly connection?: number
  /** How long rates stay as they are at least. @default 0 */
  readonly quantum?: number
  /** How many times as long as on a good one everything takes a machine's processor. @default 1 */
  readonly slowness?: number
}

/** One way, in ms. */
export const lanLatency = 0.3
export const upstreamLatency = 20

/** What a message, and a request for a chunk, costs the processor of each of the two machines, in ms. */
export const messageCost = 0.3
export const requestCost = 0.25

/** A member that has certainly lied, as another has found. */
export type Blame = { readonly at: number; readonly by: string; readonly whom: string; readonly reason: string }

/** Machines on a LAN with one line. */
export class Office {
  readonly events = new Events()
  readonly flows: Flows
  readonly chance: Chance
  readonly line: Link
  readonly connection: number | undefined
  readonly slowness: number
  readonly machines = new Map<string, Machine>()
  readonly blames: Blame[] = []
  /** Bytes that have come over the line, by flows that have ended. */
  upstream = 0
  messages = 0
  requests = 0

  constructor({ seed, line = 100, connection, quantum = 0, slowness = 1 }: OfficeOptions) {
    this.chance = new Chance(seed)
    this.flows = new Flows(this.events, quantum)
    this.line = new Link(line)
    this.connection = connection
    this.slowness = slowness
  }

  /** Puts a machine on the LAN, connected to all that are there. */
  add(id: string, options: MachineOptions = {}): Machine {
    const machine = new Machine(this, id, options)
    for (const other of this.machines.values()) this.connect(machine, other)
    this.machines.set(id, machine)
    return machine
  }

  /** Whether what one sends now gets to the other. */
  reaches(one: Machine, other: Machine): boolean {
    return one.up && other.up && one.side === other.side
  }

  connect(one: Machine, other: Machine): void {
    if (one === other || one.banned.has(other.id) || other.banned.has(one.id)) return
    if (!this.reaches(one, other)) return
    one.peers.add(other.id)
    other.peers.add(one.id)
    one.run(() => one.spreads.arrived(other.id))
    other.run(() => other.spreads.arrived(one.id))
  }

  /** The connection is seen to have ended, on both sides. */
  disconnect(one: Machine, other: Machine): void {
    one.lose(other)
    other.lose(one)
  }

  /** Splits the LAN, or heals it: who is on another side is not reached, which is seen after a while. */
  arrange(sideOf: (machine: Machine) => number, seenAfter: () => number): void {
    const machines = [...this.machines.values()]
    for (const machine of machines) machine.side = sideOf(machine)
    for (const machine of machines) machine.flowsChanged()
    for (const [i, one] of machines.entries())
      for (const other of machines.slice(i + 1)) this.#see(one, other, seenAfter())
  }

  /** A machine goes, or comes back, which is seen after a while. */
  moved(machine: Machine, seenAfter: () => number): void {
    machine.flowsChanged()
    for (const other of this.machines.values()) if (other !== machine) this.#see(machine, other, seenAfter())
  }

  #see(one: Machine, other: Machine, after: number): void {
    const connected = one.peers.has(other.id)
    const reached = this.reaches(one, other)
    if (connected === reached) return
    // What was under way is lost, even if the other comes back before it is seen.
    if (connected) one.broken(other)
    this.events.after(after, () => {
      if (this.reaches(one, other)) {
        if (one.peers.has(other.id)) this.disconnect(one, other)
        this.connect(one, other)
      } else this.disconnect(one, other)
    })
  }
}
