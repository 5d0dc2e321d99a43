import type { Ended } from '../shoal-process.ts'

/** A tool that pulls images, set up as docs/clients.md says, with a store of its own. */
export interface Client extends AsyncDisposable {
  /** Its name among the `clients` of `/api/v1/status`. */
  readonly tool: string
  /** What it wanted from anybody but Shoal; {@link ClosedProxy.wanted}. */
  readonly wanted: readonly string[]
  /** Pulls the latest of a repository of Docker Hub: `library/busybox`. */
  pull(repository: string): Promise<Ended>
  /** Writes what its store holds of the image into an empty folder, each layer's tar into a file. */
  save(repository: string, folder: string): Promise<void>
  /** Empties its store. */
  forget(): Promise<void>
}

/** @throws what a command has said, if it failed */
export function done({ status, stdout, stderr }: Ended): string {
  if (status !== 0) throw new Error(`ended with ${status}:\n${stdout}${stderr}`)
  return stdout
}
