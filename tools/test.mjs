/**
 * npm test: from a fresh checkout, everything that is needed and then all tests, against real servers on free ports.
 * Arguments go to jest (`npm test -- libs/bus`); the examples run when there are none.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from './build.mjs';
import { root } from './checkout.mjs';
import { ensureChromium } from './embedded/chromium.mjs';
import { ensureNatsServer } from './embedded/nats.mjs';
import { installDependencies, step } from './steps.mjs';

const totals = { passed: 0, failed: 0, skipped: 0 };
const args = process.argv.slice(2);

try {
  await installDependencies();
  await step('find nats-server', () => ensureNatsServer());
  await step('find Chromium', () => ensureChromium());
  await build();
  await runJest();
  if (args.length === 0) await runAllExamples();
} catch (error) {
  totals.failed++;
  console.error(error instanceof Error ? error.message : error);
}
console.log(
  `${totals.passed} passed, ${totals.failed} failed${totals.skipped ? `, ${totals.skipped} skipped` : ''}`,
);
process.exitCode = totals.failed > 0 ? 1 : 0;

async function runJest() {
  const reports = mkdtempSync(join(tmpdir(), 'posthorn-jest-'));
  const report = join(reports, 'report.json');
  const jest = [
    '--experimental-vm-modules',
    '--disable-warning=ExperimentalWarning',
    join(root, 'node_modules/jest/bin/jest.js'),
    '--json',
    `--outputFile=${report}`,
    ...args,
  ];
  try {
    await step('run the tests', async () => {
      const child = spawn(process.execPath, jest, { cwd: root, stdio: ['inherit', 'ignore', 'inherit'] });
      // Jest waits for ever for what a test has left open.
      const stuck = setInterval(
        () => existsSync(report) && Date.now() - statSync(report).mtimeMs > 15_000 && child.kill(),
        1_000,
      );
      const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
      clearInterval(stuck);
      const { numPassedTests, numFailedTests, numRuntimeErrorTestSuites } = JSON.parse(
        readFileSync(report, 'utf8'),
      );
      totals.passed += numPassedTests;
      totals.failed += numFailedTests + numRuntimeErrorTestSuites;
      if (code === null) throw new Error('jest did not end: a test has left something open');
      if (code !== 0 && totals.failed === 0) throw new Error(`jest ended with code ${code}`);
    });
  } finally {
    rmSync(reports, { recursive: true, force: true });
  }
}

async function runAllExamples() {
  const { examples, runExamples } = await import('./examples.mjs');
  if (examples().length === 0) return;
  await step('run the examples', async () => {
    const { passed, failed, skipped } = await runExamples((example, outcome, output, ms) => {
      if (outcome === 'skipped') return console.log(`  ○ ${example} skipped: ${output}`);
      console.log(`  ${outcome === 'passed' ? '✓' : '✗'} ${example} (${(ms / 1000).toFixed(1)} s)`);
      if (outcome === 'failed') console.log(output);
    });
    totals.passed += passed;
    totals.failed += failed;
    totals.skipped += skipped;
  });
}
