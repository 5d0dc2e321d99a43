import { isDigest } from '@shoal/oci/digest'
import { z } from 'zod'

/** Kinds of fields that messages between peers have in common (docs/protocol.md, Frames). */

export const uint = z.int().min(0)
export const bytes = z.custom<Uint8Array>(value => value instanceof Uint8Array)
export const digest = z.string().refine(isDigest)
export const peerId = z.string().regex(/^[0-9A-Za-z]{1,128}$/)

/** Of Ed25519. */
export const signature = bytes.refine(({ length }) => length === 64)
