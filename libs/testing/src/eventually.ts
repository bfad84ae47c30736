import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Resolves once a condition holds, for what happens in another process and announces itself to nobody.
 * @throws after 30 s
 */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`never came true: ${condition}`);
    await sleep(5);
  }
}
