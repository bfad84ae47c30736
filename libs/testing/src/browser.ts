import type { Browser } from 'playwright-core';
import { ensureChromium } from '../../../tools/embedded/chromium.mjs';

export type { BrowserContext, Page } from 'playwright-core';

/** A real browser without a window; disposing of it ends its processes and removes its profile. */
export type TestBrowser = Browser & AsyncDisposable;

/** Starts Chromium. Each `newContext()` is a person with cookies and storage of their own. */
export async function startBrowser(): Promise<TestBrowser> {
  // Loaded by those who open one: most specs do not.
  const { chromium } = await import('playwright-core');
  return chromium.launch({
    executablePath: ensureChromium(),
    // Chromium's sandbox refuses to run for root, which tests in containers are.
    chromiumSandbox: process.getuid?.() !== 0,
    // Containers give 64 MiB to /dev/shm.
    args: ['--disable-dev-shm-usage'],
  });
}
