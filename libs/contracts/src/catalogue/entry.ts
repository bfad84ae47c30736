/** The shape of the catalogue: one entry for each documented topic, as data. */
import type { TSchema } from '@sinclair/typebox';
import type { Scope } from '../subject.js';

/** Who may publish and subscribe (docs/protocols/events.md, "Who may do what"). */
export type Access =
  /** Published by role service and admin; users may subscribe where the scope is global. */
  | 'platform'
  /** The owner named by the parameter may subscribe and never publish; service and admin may do both. */
  | 'owner'
  /** Whoever knows the parameter may subscribe; service and admin may publish. */
  | 'secret'
  /** Any member of the audience, within its permissions. */
  | 'open';

/** The parameter at a template's end. The event's key is its value. */
export interface Parameter {
  readonly name: 'username' | 'sub' | 'id' | 'target';
  /** Which claim of a principal makes it the owner. */
  readonly owner?: 'username' | 'sub';
  /** The parameter is not written in the topic's name: the payload's `target` is the key. */
  readonly hidden?: true;
  /** The parameter is a secret: subjects and headers carry its SHA-256 only. */
  readonly secret?: true;
  /** The payload has a member of the parameter's name, and the two agree (docs/protocols/inthe-am.md). */
  readonly repeated?: true;
}

/** A documented topic. */
export interface CatalogueEntry {
  /** As documented; for a template without its parameter: `personal`, `usernotification:created`. */
  readonly name: string;
  /** What stands between name and parameter in a template's name. */
  readonly separator?: '.' | ':';
  readonly parameter?: Parameter;
  /** Other spellings of the same topic; either name hears both. */
  readonly aliases?: readonly string[];
  /** Where the documents publish it. The first is the default where a caller does not say. */
  readonly scopes: readonly Scope[];
  readonly access: Access;
  readonly description: string;
  /** Modules that publish and subscribe, by the documents' own tables. */
  readonly publishers: readonly string[];
  readonly subscribers: readonly string[];
  /** JSON Schema 2020-12 of the payload; its TypeScript type is `Static<typeof payload>`. */
  readonly payload: TSchema;
  /** The document that describes it: a file under docs/protocols. */
  readonly source: 'esn' | 'inthe-am' | 'tryton' | 'livestorm' | 'courier';
}

/** Keeps an entry's literal types, so that `PayloadOf<name>` can be looked up. */
export function defineTopics<const T extends Record<string, Omit<CatalogueEntry, 'name'>>>(topics: T): T {
  return topics;
}
