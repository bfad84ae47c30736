/** What a payload and its topic's name both say (docs/protocols/inthe-am.md): the two agree. */
import type { Finding } from '../problem.js';
import type { CatalogueEntry } from './entry.js';

/**
 * What in a payload contradicts its topic's name. What is missing or of another type is the schema's to tell.
 * @param topic its entry in the catalogue, and its parameter
 */
export function checkAgreement(
  { entry, key }: { readonly entry: CatalogueEntry | undefined; readonly key: string | null },
  payload: unknown,
): readonly Finding[] {
  const { parameter } = entry ?? {};
  if (!parameter?.repeated) return NONE;
  const said = (payload as Readonly<Record<string, unknown>> | null)?.[parameter.name];
  if (typeof said !== 'string' || said === key) return NONE;
  return [{ path: `/${parameter.name}`, message: "must be the one in the topic's name" }];
}

const NONE: readonly Finding[] = [];
