/** The image without an engine: what the Dockerfile's stages copy and run, done in folders. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { basename, join, normalize, resolve } from 'node:path';

export interface Instruction {
  /** `COPY`, `RUN`, … */
  readonly word: string;
  /** What follows, with its line breaks taken out and build arguments filled in. */
  readonly rest: string;
}

export interface Stage {
  readonly name: string;
  readonly base: string;
  readonly instructions: readonly Instruction[];
}

/** The stages of a Dockerfile, with the defaults of its build arguments. */
export function readDockerfile(text: string): Stage[] {
  const args: Record<string, string> = {};
  const stages: (Stage & { instructions: Instruction[] })[] = [];
  const lines = text.replace(/^#.*\n/gm, '').replace(/\\\n\s*/g, '');
  for (const line of lines.split('\n').filter(Boolean)) {
    const filled = line.replace(/\$\{(\w+)\}/g, (_, name: string) => args[name] ?? '');
    const [, word = '', rest = ''] = /^(\w+)\s+(.*)$/.exec(filled) ?? [];
    const last = stages.at(-1);
    if (word === 'ARG') {
      const [name = '', value] = rest.split('=');
      args[name] ??= value ?? '';
    } else if (word === 'FROM') {
      const [base = '', , name = ''] = rest.split(/\s+/);
      stages.push({ base, name, instructions: [] });
    } else last?.instructions.push({ word, rest });
  }
  return stages;
}

export interface Copy {
  /** The stage that it copies from, or none for the checkout. */
  readonly from: string | undefined;
  readonly sources: readonly string[];
  readonly target: string;
}

export function readCopy({ rest }: Instruction): Copy {
  const words = rest.split(/\s+/);
  const from = words[0]?.startsWith('--from=') ? words.shift()?.slice('--from='.length) : undefined;
  return { from, sources: words.slice(0, -1), target: words.at(-1) ?? '' };
}

/** The value of an instruction in JSON, such as `ENTRYPOINT ["node"]`. */
export function execForm(stage: Stage, word: string): string[] {
  const { rest = '' } = stage.instructions.find((one) => one.word === word) ?? {};
  return JSON.parse(rest.slice(rest.indexOf('[')));
}

/** Whether .dockerignore lets a file of the checkout through. The last line that matches decides. */
export function isSent(file: string, patterns: readonly string[]): boolean {
  return patterns.reduce((sent, line) => {
    const [pattern, verdict] = line.startsWith('!') ? [line.slice(1), true] : [line, false];
    const expression = pattern
      .replace(/[.+]/g, '\\$&')
      .replaceAll('**/', '(.+/)?')
      .replace(/(?<![)+])\*/g, '[^/]*');
    return new RegExp(`^${expression}(/.*)?$`).test(file) ? verdict : sent;
  }, true);
}

export function ignorePatterns(): string[] {
  return readFileSync('.dockerignore', 'utf8')
    .split('\n')
    .filter((line) => line && !line.startsWith('#'));
}

/**
 * Does what the stages say, each in a folder of its own in `home`, and returns the last one's.
 * @param given files that a stage begins with, by its name, so that what the checkout has done is not done again
 */
export function buildImage(
  home: string,
  stages: readonly Stage[],
  given: Readonly<Record<string, readonly string[]>>,
): string {
  const patterns = ignorePatterns();
  const folders = new Map<string, string>();
  for (const [index, stage] of stages.entries()) {
    const folder = join(home, stage.name || `stage-${index}`);
    folders.set(stage.name, folder);
    const app = join(folder, 'app');
    mkdirSync(app, { recursive: true });
    for (const name of given[stage.name] ?? []) symlinkSync(resolve(name), join(app, name));
    for (const instruction of stage.instructions) {
      if (instruction.word === 'COPY') copy(readCopy(instruction), app, folders, patterns);
      if (instruction.word === 'RUN' && !(given[stage.name] && instruction.rest.startsWith('npm ci')))
        run(instruction.rest, app);
    }
  }
  return join([...folders.values()].at(-1) ?? '', 'app');
}

function copy(
  { from, sources, target }: Copy,
  app: string,
  folders: Map<string, string>,
  patterns: string[],
): void {
  for (const source of sources) {
    const origin = from === undefined ? resolve(source) : join(folders.get(from) ?? '', source);
    if (!existsSync(origin)) throw new Error(`COPY ${source}: there is no such file`);
    const many = target.endsWith('/');
    cpSync(origin, many ? join(app, target, basename(source)) : join(app, target), {
      recursive: true,
      dereference: true,
      filter: (file) =>
        from !== undefined || isSent(normalize(file).slice(resolve('.').length + 1), patterns),
    });
  }
}

function run(command: string, cwd: string): void {
  const { PATH, HOME } = process.env;
  const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
    cwd,
    encoding: 'utf8',
    // What `npm ci` of the checkout has brought is still in npm's cache.
    env: { PATH, HOME, npm_config_prefer_offline: 'true', npm_config_update_notifier: 'false' },
  });
  if (status !== 0) throw new Error(`${command} ended with ${status}:\n${stdout}\n${stderr}`);
}
