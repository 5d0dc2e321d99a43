import { formatReference, readReference } from '@shoal/oci/reference'
import { mostRows, type Told } from '@shoal/retention/office-popularity'
import type { Row } from '@shoal/retention/popularity'
import { z } from 'zod'
import { uint } from './wire-field.ts'

/** What a peer says of what is pulled on it, as it is sent: scores as whole numbers of steps. */

/** Of an image's reference, in characters. */
const longestImage = 512

/** Steps of a score's 1: a count is told to within a half per cent. */
const steps = 64

const image = z.string().max(longestImage).refine(isWholeReference)

export const popularityFields = {
  /** The sender's clock, in ms since the epoch. */
  at: uint,
  rows: z.array(z.tuple([image, uint])).max(mostRows),
}

const fields = z.object(popularityFields)

export type PopularityFields = z.output<typeof fields>

/** @param rows at most {@link mostRows} */
export function fieldsOf({ at, rows }: Told): PopularityFields {
  return { at, rows: rows.map(row => [row.image, stepsOf(row)]) }
}

export function toldOf({ at, rows }: PopularityFields): Told {
  return { at, rows: rows.map(([image, score]) => ({ image, score: score / steps })) }
}

/** A row's score as it is told: of two rows with the same there is nothing new to tell. */
export function stepsOf({ score }: Row): number {
  return Math.max(0, Math.round(score * steps))
}

/** Whether a row can be told. */
export function isTellable({ image }: Row): boolean {
  return image.length <= longestImage
}

/** Whether nothing is left out, so that each image has but one name. */
function isWholeReference(text: string): boolean {
  const reference = readReference(text)
  return reference !== undefined && formatReference(reference) === text
}
