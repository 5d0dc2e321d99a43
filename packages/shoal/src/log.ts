import pino, { type Logger } from 'pino'
import pretty from 'pino-pretty'

export type { Logger }

/**
 * The daemon's log: on stderr, readable on a terminal, JSON lines elsewhere.
 * @param write takes the JSON lines in place of stderr
 */
export function createLog(write?: (line: string) => void): Logger {
  if (write) return pino({}, { write })
  if (!process.stderr.isTTY) return pino(pino.destination({ fd: 2, sync: true }))
  return pino(pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss' }))
}
