import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Takes a home for this process alone; returns what gives it back.
 * @param {string} home
 * @param {'start' | 'cluster'} program the tool's name
 * @param {string} hint how a second one is run beside it
 * @throws where another process of this tool has it
 */
export function takeLock(home, program, hint) {
  const file = join(home, `${program}.pid`);
  const owner = () => (existsSync(file) ? Number(readFileSync(file, 'utf8')) : undefined);
  mkdirSync(home, { recursive: true });
  const pid = owner();
  if (pid && pid !== process.pid && runs(pid, `${program}.mjs`)) {
    throw new Error(
      `Posthorn runs already with the data in ${home} (process ${pid}). Stop that one with Ctrl-C; or, to run a second one, ${hint}`,
    );
  }
  writeFileSync(file, String(process.pid));
  return () => {
    if (owner() === process.pid) rmSync(file, { force: true });
  };
}

/**
 * Whether that process is this very program: its number may have been given out again.
 * @param {number} pid
 * @param {string} script
 */
function runs(pid, script) {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const command = `/proc/${pid}/cmdline`;
  return !existsSync(command) || readFileSync(command, 'utf8').includes(script);
}
