/** What the doctor prints. */
import { styleText } from 'node:util';
import { CHECKS, type CheckId } from './checks.js';
import type { Finding, Severity } from './finding.js';

/** A finding, and the apps whose environment or login it was found with. */
export interface Reported extends Finding {
  readonly apps: readonly string[];
}

/** What was found for several apps, once each, the worst last: that is where a terminal stands in the end. */
export function merged(found: Readonly<Record<string, readonly Finding[]>>): Reported[] {
  const byText = new Map<string, Reported & { apps: string[] }>();
  for (const [app, findings] of Object.entries(found)) {
    for (const one of findings) {
      const key = JSON.stringify([one.id, one.severity, one.found, one.remedy]);
      const known = byText.get(key);
      if (known) known.apps.push(app);
      else byText.set(key, { ...one, apps: [app] });
    }
  }
  const rank = (severity: Severity) => SEVERITIES.indexOf(severity);
  const place = Object.keys(CHECKS);
  return [...byText.values()].sort(
    (a, b) => rank(a.severity) - rank(b.severity) || place.indexOf(a.id) - place.indexOf(b.id),
  );
}

const SEVERITIES: readonly Severity[] = ['ok', 'unchecked', 'warning', 'failure'];

const SHOWN = {
  ok: { word: 'ok', style: 'green' },
  unchecked: { word: 'not checked', style: 'cyan' },
  warning: { word: 'warning', style: 'yellow' },
  failure: { word: 'FAILURE', style: 'red' },
} as const satisfies Record<Severity, { word: string; style: Parameters<typeof styleText>[0] }>;

export interface ReportOptions {
  readonly width: number;
  readonly colours: boolean;
}

/** A report to read: a line for what is well, a paragraph for everything else, and the sum. */
export function reportText(reported: readonly Reported[], { width, colours }: ReportOptions): string {
  const paint = (severity: Severity, text: string) =>
    colours ? styleText(SHOWN[severity].style, text, { validateStream: false }) : text;
  const lines = reported.flatMap((one) => {
    const { word } = SHOWN[one.severity];
    const whose = one.apps.length > 0 ? ` (${one.apps.join(', ')})` : '';
    if (one.severity === 'ok') {
      const [first = '', ...more] = wrapped(`${one.id}: ${one.found}`, width - 4);
      return [`${paint('ok', word)}  ${first}`, ...more.map((line) => `    ${line}`)];
    }
    return [
      '',
      `${paint(one.severity, word)}  ${one.id}${whose}`,
      ...indented(`${one.found}.`, width),
      ...labelled('Why', one.why, width),
      ...labelled(one.severity === 'unchecked' ? 'Look' : 'Do', one.remedy ?? '', width),
    ];
  });
  return `${[...lines, '', sumOf(reported)].join('\n')}\n`;
}

/** `2 failures, 1 warning, 1 not checked, 20 ok` */
export function sumOf(reported: readonly Pick<Finding, 'severity'>[]): string {
  const count = (severity: Severity) => reported.filter((one) => one.severity === severity).length;
  const counted = (n: number, one: string) => `${n} ${one}${n === 1 ? '' : 's'}`;
  return [
    counted(count('failure'), 'failure'),
    counted(count('warning'), 'warning'),
    `${count('unchecked')} not checked`,
    `${count('ok')} ok`,
  ].join(', ');
}

/** The same for machines. */
export function reportJson(reported: readonly Reported[]): string {
  return `${JSON.stringify(
    {
      findings: reported.map(({ id, severity, apps, found, why, remedy }) => ({
        id,
        severity,
        apps,
        found,
        why,
        remedy,
      })),
    },
    null,
    2,
  )}\n`;
}

/** Text for an operator whose app does not start. */
export function refusalText(findings: readonly Finding[]): string {
  return findings
    .map(({ id, found, why, remedy }) => `${id}: ${found}.\n  Why: ${why}\n  Do:  ${remedy}`)
    .join('\n');
}

/** The documentation's table of checks. */
export function checksTable(): string {
  const start = { stops: 'stops', told: 'logs', no: '' } as const;
  const rows = (Object.keys(CHECKS) as CheckId[]).map((id) => {
    const { of, why, atStart } = CHECKS[id];
    return `| \`${id}\` | ${of} | ${why} | ${start[atStart]} |`;
  });
  return ['| check | looks at | why | at start |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

function indented(text: string, width: number): string[] {
  return wrapped(text, width - 2).map((line) => `  ${line}`);
}

function labelled(label: string, text: string, width: number): string[] {
  const [first = '', ...more] = wrapped(text, width - 8);
  return [`  ${label.padEnd(6)}${first}`, ...more.map((line) => `        ${line}`)];
}

/** Lines of a text that is broken between words, without what would steer a terminal. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, ' ').split(/ +/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    line += line === '' ? word : ` ${word}`;
  }
  return [...lines, line];
}
