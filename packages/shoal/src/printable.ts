/** Text that came from elsewhere, as a terminal may be shown it: on one line, and without what would steer it. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\uFFFD')
}
