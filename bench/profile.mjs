/**
 * Preloaded into a process that is profiled (`--import`): SIGUSR2 begins a CPU profile, and the next one writes it into
 * the directory that the preload's URL names as `?into=`. `--cpu-prof` would hold the start and the end, too.
 */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { join } from 'node:path';

const directory = new URL(import.meta.url).searchParams.get('into') ?? '.';
const session = new Session();
session.connect();
session.post('Profiler.enable');
let running = false;

process.on('SIGUSR2', () => {
  running = !running;
  if (running) return session.post('Profiler.start');
  session.post('Profiler.stop', (error, result) => {
    if (error) throw error;
    writeFileSync(join(directory, `${process.pid}.cpuprofile`), JSON.stringify(result.profile));
  });
});
