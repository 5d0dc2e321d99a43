import pino, { type Logger } from 'pino'
import pretty from 'pino-pretty'

export type { Logger }

/** What waits to be read by whoever reads the log, in bytes; beyond that lines are dropped, so that nobody else waits. */
const maxLength = 1024 * 1024

/**
 * The daemon's log: on stderr, readable on a terminal, JSON lines elsewhere.
 * @param write takes the JSON lines in place of stderr
 */
export function createLog(write?: (line: string) => void): Logger {
  if (write) return pino({}, { write })
  if (!process.stderr.isTTY) return pino(pino.destination({ fd: 2, sync: false, maxLength }))
  return pino(pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss' }))
}
