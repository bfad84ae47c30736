/** Pieces that several payload schemas of the catalogue share. */
import { type TLiteral, type TSchema, Type } from '@sinclair/typebox';

/** A JSON object about whose members the documents say nothing. */
export const AnyObject = Type.Unsafe<Readonly<Record<string, unknown>>>({ type: 'object' });

/** What a document allows to be null. */
export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

/** One of a few words. Written as `enum`, of which validators report one finding instead of one per word. */
export const OneOf = <const T extends readonly string[]>(words: T) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...words] });

/** An object type's name, as activity streams write it: always this one word. */
export const ObjectType = <const T extends string>(word: T): TLiteral<T> => Type.Literal(word);

/** A schema with what its value means, for the documents that are made from it. */
export const described = <T extends TSchema>(schema: T, description: string): T => ({
  ...schema,
  description,
});
