/** The process itself: what the machine, or the container, lets it have. */
import { readFileSync } from 'node:fs';
import { constrainedMemory, version } from 'node:process';
import { getHeapStatistics } from 'node:v8';
import { type Finding, finding, ok } from './finding.js';

/** The floor in package.json. */
const NODE = { major: 20, minor: 19 } as const;
const MIB = 1024 ** 2;

/** @param files how many the app wants to be able to open */
export function processFindings(files: number): Finding[] {
  return [
    nodeFinding(version),
    filesFinding(openFilesLimit(), files),
    memoryFinding(getHeapStatistics().heap_size_limit, constrainedMemory()),
  ];
}

/** @param running such as `v20.20.0` */
export function nodeFinding(running: string): Finding {
  const [major = 0, minor = 0] = running.slice(1).split('.').map(Number);
  const enough = major > NODE.major || (major === NODE.major && minor >= NODE.minor);
  return enough
    ? ok('process.node', `Node.js ${running.slice(1)}`)
    : finding(
        'process.node',
        'failure',
        `Node.js ${running.slice(1)}`,
        `Use ${NODE.major}.${NODE.minor} or later; the image has the LTS version.`,
      );
}

/**
 * @param limit undefined where the system does not say, Infinity for none
 * @param wanted see {@link processFindings}
 */
export function filesFinding(limit: number | undefined, wanted: number): Finding {
  if (limit === undefined)
    return finding(
      'process.files',
      'unchecked',
      'this system does not show the limit',
      'Run `ulimit -Hn` as the user of the app.',
    );
  if (limit >= wanted)
    return ok('process.files', limit === Infinity ? 'no limit of open files' : `${limit} open files`);
  return finding(
    'process.files',
    'warning',
    `at most ${limit} open files, and ${wanted} are wanted`,
    'Raise the hard limit of open files for the process: LimitNOFILE of the container runtime, `ulimits` of compose.',
  );
}

/**
 * @param heapLimit what the heap may grow to, in bytes
 * @param memory what the process may have, in bytes; 0, or more than any machine has, where nothing limits it
 */
export function memoryFinding(heapLimit: number, memory: number | undefined): Finding {
  if (!memory || memory >= 2 ** 52) return ok('process.memory', 'no memory limit');
  const found = `the heap may grow to ${Math.round(heapLimit / MIB)} MiB of ${Math.round(memory / MIB)} MiB`;
  if (heapLimit < memory) return ok('process.memory', found);
  return finding(
    'process.memory',
    'warning',
    found,
    `Raise the memory limit, or set NODE_OPTIONS=--max-old-space-size=${Math.floor((memory / MIB) * 0.75)}.`,
  );
}

/** The hard limit: Node.js raises the soft one to it. */
function openFilesLimit(): number | undefined {
  try {
    const [, hard] = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    if (hard === undefined) return undefined;
    return hard === 'unlimited' ? Infinity : Number(hard);
  } catch {
    return undefined;
  }
}
