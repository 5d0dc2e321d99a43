import type { Finding, Progress } from '@shoal/store/verification'
import prettyBytes from 'pretty-bytes'
import { DaemonError, haveDaemon } from '../admin/client.ts'
import type { VerificationLine, VerificationSummary } from '../admin/verification.ts'
import type { Settings } from '../settings/schema.ts'

/**
 * `shoal verify`: everything that is held is read, and what has rotten is fetched again.
 * @param args.terminal where the progress is shown, on a line of its own
 * @returns the exit status: 0 if all is sound, or is so again, else 1
 * @throws DaemonError
 */
export async function verifyCommand(args: {
  readonly settings: Settings
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
  readonly terminal?: { write(text: string): unknown }
}): Promise<number> {
  const { settings, json, out, terminal } = args
  const findings: Finding[] = []
  let summary: VerificationSummary | undefined
  try {
    for await (const line of haveDaemon<VerificationLine>(settings, 'verify')) {
      if ('progress' in line) terminal?.write(`${erased}${formatProgress(line.progress)}`)
      else if ('summary' in line) summary = line.summary
      else {
        findings.push(line.finding)
        terminal?.write(erased)
        if (!json) out(formatFinding(line.finding))
      }
    }
  } finally {
    terminal?.write(erased)
  }
  if (!summary) throw new DaemonError('the daemon has broken off: its log says why')
  out(json ? JSON.stringify({ ...summary, findings }) : formatSummary(summary, findings))
  return summary.findings === summary.refetched ? 0 : 1
}

/** The line that a terminal is at is made empty. */
const erased = '\r\u001B[K'

const count = (number: number) => number.toLocaleString('en')

function formatProgress({ checked, of, bytes, of_bytes }: Progress): string {
  return `${count(checked)} of ${count(of)} blobs, ${prettyBytes(bytes)} of ${prettyBytes(of_bytes)}`
}

function formatFinding({ digest, size, problem, quarantined, refetched, reason }: Finding): string {
  const what = {
    missing: 'its file is gone',
    length: 'has another length than when it was stored',
    bytes: 'has other bytes than when it was stored',
    unreadable: 'cannot be read',
    sizes: 'is sound, but wrong',
  }[problem]
  const now = refetched ? 'fetched again' : problem === 'sizes' ? undefined : 'not fetched again'
  const parts = [what, ...(quarantined ? ['in quarantine'] : []), ...(now === undefined ? [] : [now])]
  return `${digest} (${prettyBytes(size)}): ${parts.join('; ')}${reason === undefined ? '' : `: ${reason}`}`
}

function formatSummary({ checked, bytes, seconds, refetched }: VerificationSummary, findings: readonly Finding[]) {
  const read = `checked ${count(checked)} ${checked === 1 ? 'blob' : 'blobs'}, ${prettyBytes(bytes)} in ${seconds} s`
  if (findings.length === 0) return `${read}: all sound`
  const sizes = findings.filter(({ problem }) => problem === 'sizes').length
  const missing = findings.filter(({ problem }) => problem === 'missing').length
  const kinds = { rotten: findings.length - missing - sizes, missing, 'sound, but wrong': sizes }
  const found = Object.entries(kinds).filter(([, number]) => number > 0)
  const failed = findings.length - sizes - refetched
  const then = [
    ...(refetched > 0 ? [`${count(refetched)} fetched again`] : []),
    ...(failed > 0 ? [`${count(failed)} could not be`] : []),
  ]
  const kindsFound = found.map(([kind, number]) => `${count(number)} ${kind}`).join(', ')
  return `${read}: ${kindsFound}${then.length > 0 ? `: ${then.join(', ')}` : ''}`
}
