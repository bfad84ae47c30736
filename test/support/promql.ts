/** What a PromQL expression asks for, by Prometheus's own grammar. */
import { parser } from '@prometheus-io/lezer-promql';

/** A selector of an expression. */
export interface Selector {
  readonly metric: string;
  readonly labels: readonly string[];
}

export interface Asked {
  readonly selectors: readonly Selector[];
  /** Labels that results are grouped by. */
  readonly grouped: readonly string[];
}

/** @throws SyntaxError for what is no PromQL */
export function readPromql(expression: string): Asked {
  const selectors: { metric: string; labels: string[] }[] = [];
  const grouped: string[] = [];
  let grouping = false;
  parser.parse(expression).iterate({
    enter: ({ type, from, to }) => {
      const text = expression.slice(from, to);
      if (type.isError) throw new SyntaxError(`no PromQL at ${from}: ${expression}`);
      if (type.name === 'VectorSelector') selectors.push({ metric: '', labels: [] });
      if (type.name === 'Identifier') selectors.at(-1)!.metric = text;
      if (type.name === 'GroupingLabels') grouping = true;
      if (type.name !== 'LabelName') return;
      if (grouping) grouped.push(text);
      else selectors.at(-1)!.labels.push(text);
    },
    leave: ({ type }) => {
      if (type.name === 'GroupingLabels') grouping = false;
    },
  });
  return { selectors, grouped };
}
