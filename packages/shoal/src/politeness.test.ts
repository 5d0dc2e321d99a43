import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Politeness, type PolitenessOptions } from './politeness.ts'

const none = async (program: string): Promise<string> => {
  throw new Error(`there is no ${program}`)
}

/** A system as its files tell of it: text by path, such as `sys/class/power_supply/AC/online`. */
class System implements AsyncDisposable {
  readonly folder: string
  readonly politeness: Politeness
  readonly asked: string[] = []
  time = 0

  private constructor(folder: string, options: Partial<PolitenessOptions>) {
    this.folder = folder
    const { run = none, ...more } = options
    this.politeness = new Politeness({
      root: folder,
      platform: 'linux',
      interfaces: () => ({}),
      now: () => this.time,
      run: (program, args) => {
        this.asked.push([program, ...args].join(' '))
        return run(program, args)
      },
      ...more,
    })
  }

  static async of(files: Readonly<Record<string, string>>, options: Partial<PolitenessOptions> = {}): Promise<System> {
    const system = new System(await mkdtemp(join(tmpdir(), 'shoal-system-')), options)
    await system.write(files)
    return system
  }

  async write(files: Readonly<Record<string, string>>): Promise<void> {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(this.folder, path)), { recursive: true })
      await writeFile(join(this.folder, path), `${text}\n`)
    }
    await this.politeness.look()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.politeness[Symbol.dispose]()
    await rm(this.folder, { recursive: true })
  }
}

/** Files of `sys/class/power_supply`. */
function supplies(each: Readonly<Record<string, Readonly<Record<string, string>>>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(each).flatMap(([name, files]) =>
      Object.entries(files).map(([file, text]) => [`sys/class/power_supply/${name}/${file}`, text]),
    ),
  )
}

const mains = (online: string) => ({ type: 'Mains', online })
const battery = (status: string) => ({ type: 'Battery', status })

test('a laptop rests on its battery, and gives again when it is plugged in', async () => {
  await using laptop = await System.of(supplies({ AC: mains('1'), BAT0: battery('Charging') }))
  assert.is(laptop.politeness.resting(), undefined)
  await laptop.write(supplies({ AC: mains('0'), BAT0: battery('Discharging') }))
  assert.is(laptop.politeness.resting(), 'on battery')
  assert.is(laptop.politeness.resting('192.168.1.7'), 'on battery')
  await laptop.write(supplies({ AC: mains('1'), BAT0: battery('Not charging') }))
  assert.is(laptop.politeness.resting(), undefined)
})

const powered: [title: string, each: Parameters<typeof supplies>[0], resting: string | undefined][] = [
  ['a desktop or a virtual machine has neither', {}, undefined],
  ['a desktop with a mouse', { mouse: { ...battery('Discharging'), scope: 'Device' } }, undefined],
  ['a laptop whose adapter is not listed', { BAT0: battery('Discharging') }, 'on battery'],
  [
    'one of several USB-C ports is powered',
    {
      BAT0: battery('Discharging'),
      'ucsi-1': { type: 'USB', online: '0' },
      'ucsi-2': { type: 'USB', online: '1' },
    },
    undefined,
  ],
  [
    'the second of two batteries',
    { AC: mains('0'), BAT0: battery('Full'), BAT1: battery('Discharging') },
    'on battery',
  ],
  ['a battery that says nothing', { AC: mains('0'), BAT0: { type: 'Battery' } }, undefined],
]
for (const [title, each, resting] of powered) {
  test(`power: ${title}`, async () => {
    await using system = await System.of(supplies(each))
    assert.is(system.politeness.resting(), resting)
  })
}

const manager = { 'run/NetworkManager/devices': '' }
const metered: [title: string, answers: Readonly<Record<string, string>>, resting: string | undefined][] = [
  ['yes', { busctl: 'u 1\n' }, 'on a metered line'],
  ['no', { busctl: 'u 2\n' }, undefined],
  ['guessed yes', { busctl: 'u 3\n' }, 'on a metered line'],
  ['guessed no', { busctl: 'u 4\n' }, undefined],
  ['not known', { busctl: 'u 0\n' }, undefined],
  ['without busctl', { nmcli: 'no (guessed)\n\nyes (guessed)\n' }, 'on a metered line'],
  ['without busctl, no', { nmcli: 'no\n\nunknown\n' }, undefined],
  ['without either', {}, undefined],
]
for (const [title, answers, resting] of metered) {
  test(`metered line: ${title}`, async () => {
    const run = async (program: string) => answers[program] ?? none(program)
    await using system = await System.of(manager, { run })
    assert.is(system.politeness.resting(), resting)
  })
}

test('NetworkManager is asked once a minute, and not where it does not run', async () => {
  await using system = await System.of(manager, { run: async () => 'u 2\n' })
  system.time = 59_000
  await system.politeness.look()
  assert.is(system.asked.length, 1)
  system.time = 60_000
  await system.politeness.look()
  assert.is(system.asked.length, 2)
  assert.match(system.asked[0] ?? '', '--auto-start=no')
  await using server = await System.of({})
  assert.equal(server.asked, [])
})

test('nothing is given over a VPN, and all is over the LAN', async () => {
  const interfaces = () => ({
    eth0: [{ address: '192.168.1.7' }, { address: 'fe80::7' }],
    corp: [{ address: '10.8.0.2' }],
    office: [{ address: '10.9.0.2' }, { address: 'fd00::2' }],
    hub: [{ address: '10.10.0.2' }],
    tailscale0: [{ address: '100.64.0.2' }],
  })
  const files = {
    'sys/class/net/eth0/type': '1',
    'sys/class/net/eth0/uevent': 'INTERFACE=eth0\nIFINDEX=2',
    'sys/class/net/corp/tun_flags': '0x1001',
    'sys/class/net/office/uevent': 'DEVTYPE=wireguard\nINTERFACE=office',
    'sys/class/net/hub/type': '512',
  }
  await using system = await System.of(files, { interfaces })
  const { politeness } = system
  for (const address of ['192.168.1.7', '::ffff:192.168.1.7', 'fe80::7%eth0', '127.0.0.1', undefined])
    assert.is(politeness.resting(address), undefined, address)
  assert.is(politeness.resting('10.8.0.2'), 'over a VPN (corp)')
  assert.is(politeness.resting('::ffff:10.9.0.2'), 'over a VPN (office)')
  assert.is(politeness.resting('fd00::2%office'), 'over a VPN (office)')
  assert.is(politeness.resting('10.10.0.2'), 'over a VPN (hub)')
  assert.is(politeness.resting('100.64.0.2'), 'over a VPN (tailscale0)')
})

test('elsewhere the name of an interface tells, and the system itself of the battery', async () => {
  const interfaces = () => ({ en0: [{ address: '192.168.1.7' }], utun3: [{ address: '10.8.0.2' }] })
  let onBattery = false
  await using system = await System.of({}, { interfaces, platform: 'darwin', discharges: async () => onBattery })
  assert.is(system.politeness.resting('192.168.1.7'), undefined)
  assert.is(system.politeness.resting('10.8.0.2'), 'over a VPN (utun3)')
  onBattery = true
  system.time = 60_000
  await system.politeness.look()
  assert.is(system.politeness.resting('192.168.1.7'), 'on battery')
  assert.equal(system.asked, [])
})

test.run()
