/** The doctor as a program: `npm run doctor`, and `node docker/run.mjs doctor` in the image. */
import { parseArgs } from 'node:util';
import type { Examine } from './examination.js';
import { merged, reportJson, reportText } from './report.js';

/** A line that is still read with ease. */
const WIDEST = 100;

export interface DoctorOptions {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** By the name of the app. Loaded when it is asked for. */
  readonly apps: Readonly<Record<string, () => Promise<Examine>>>;
  /** How it is called, for the usage. */
  readonly command: string;
}

/**
 * Examines the apps that are named, or all, and prints what it found.
 *
 * @returns the exit code: 0 where nothing failed, 1 where something did (with `--strict`: or there is a warning),
 *   2 where the command line is not understood
 */
export async function runDoctor({ args, env, apps, command }: DoctorOptions): Promise<0 | 1 | 2> {
  const names = Object.keys(apps);
  const options = optionsOf(args);
  const unknown =
    typeof options === 'string' ? [] : options.positionals.filter((name) => !names.includes(name));
  if (typeof options === 'string' || unknown.length > 0) {
    const problem = typeof options === 'string' ? options : `No such app: ${unknown.join(', ')}`;
    process.stderr.write(`${problem}\n\n${usageOf(command, names)}`);
    return 2;
  }
  if (options.values.help) {
    process.stdout.write(usageOf(command, names));
    return 0;
  }
  const wanted = options.positionals.length > 0 ? [...new Set(options.positionals)] : names;
  const found = await Promise.all(
    wanted.map(async (name) => {
      const examine = await (apps[name] as () => Promise<Examine>)();
      return [name, await examine(env)] as const;
    }),
  );
  const reported = merged(Object.fromEntries(found));
  const { stdout } = process;
  const text = options.values.json
    ? reportJson(reported)
    : reportText(reported, {
        width: Math.min(stdout.columns || WIDEST, WIDEST),
        colours: Boolean(stdout.isTTY) && !env.NO_COLOR,
      });
  await new Promise<void>((resolve) => stdout.write(text, () => resolve()));
  const bad = options.values.strict ? ['failure', 'warning'] : ['failure'];
  return reported.some(({ severity }) => bad.includes(severity)) ? 1 : 0;
}

function optionsOf(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        strict: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    return (error as Error).message.replace(/\. .*/s, '');
  }
}

function usageOf(command: string, names: readonly string[]): string {
  return `${command} [${names.join('|')}]… [--json] [--strict]

Looks at what the apps need, in this environment and with their own logins, and changes nothing:
configuration, secrets, NATS, JetStream, streams, buckets, consumers, PostgreSQL, clocks.

  --json     for machines
  --strict   a warning is a failure

Ends with 0 where nothing failed, 1 where something did, 2 where this was not understood.
`;
}
