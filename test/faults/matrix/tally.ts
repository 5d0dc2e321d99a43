import type { Cell } from './cell.ts'
import type { Outcome } from './trial.ts'

type Result = { readonly cell: Cell; readonly outcome: Outcome | undefined; readonly ms: number }

/** What came out of the cells. */
export class Tally {
  readonly #results: Result[] = []

  /** @param outcome undefined for a cell that failed; `ms` until its answer was over */
  add(result: Result): void {
    this.#results.push(result)
  }

  /** `312 cells: 214 right bytes, 98 clean errors`, and how many failed if some did. */
  get line(): string {
    const failed = this.#count(undefined)
    return (
      `${this.#results.length} cells: ${this.#count('right bytes')} right bytes, ${this.#count('clean error')} clean errors` +
      (failed > 0 ? `, ${failed} failed` : '')
    )
  }

  /** A row for each fault, in Markdown. */
  get table(): string {
    const rows = [...Map.groupBy(this.#results, ({ cell }) => cell.faultCase.name)].map(([name, results]) => {
      const count = (outcome: Outcome) => results.filter(result => result.outcome === outcome).length
      const slowest = Math.max(...results.map(({ ms }) => ms)) / 1000
      return `| ${name} | ${results.length} | ${count('right bytes')} | ${count('clean error')} | ${slowest.toFixed(1)} s |`
    })
    return ['| fault | cells | right bytes | clean errors | slowest |', '|---|---|---|---|---|', ...rows].join('\n')
  }

  #count(outcome: Outcome | undefined): number {
    return this.#results.filter(result => result.outcome === outcome).length
  }
}
