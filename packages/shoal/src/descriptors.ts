/**
 * How many files and connections this process may have open at once. Node has raised the limit as far as it may when it
 * started: a shell's `ulimit -Sn` does not count, its `ulimit -Hn` and systemd's `LimitNOFILE=` do.
 * @returns Infinity where there is no limit, or none that can be told
 */
export function descriptorLimit(): number {
  // Else the report looks up the names of all addresses there are connections to.
  const report = Object.assign(process.report, { excludeNetwork: true })
  const { userLimits } = report.getReport() as { userLimits?: { open_files?: { soft: number | string } } }
  const limit = Number(userLimits?.open_files?.soft)
  return Number.isNaN(limit) ? Number.POSITIVE_INFINITY : limit
}
