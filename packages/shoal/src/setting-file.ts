import { readFile } from 'node:fs/promises'
import { SettingsError } from './settings/error.ts'
import type { LoadedSettings } from './settings/load.ts'

/** Thrown when the daemon cannot start. The message says what to do. */
export class StartError extends Error {
  readonly code = 'START'
}

/** Thrown when a file that a setting names cannot be used. */
export class SettingFileError extends Error {
  readonly code = 'SETTING_FILE'
  readonly key: string

  /** @param key as in `LoadedSettings.origins` */
  constructor(key: string, message: string, options?: ErrorOptions) {
    super(`${key}: ${message}`, options)
    this.key = key
  }

  /** The same as a problem of the settings, with the place where the file is named. */
  in({ origins }: LoadedSettings): SettingsError {
    const place = origins[this.key]?.replace(/^\w+ /, '')
    return new SettingsError([place === undefined ? this.message : `${place}: ${this.message}`])
  }
}

/** Reads a file that a setting names. @throws SettingFileError */
export async function readSetting(path: string, key: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : cause
    const what = code === 'ENOENT' ? `there is no file ${path}` : `${path} cannot be read (${code})`
    throw new SettingFileError(key, what, { cause })
  }
}
