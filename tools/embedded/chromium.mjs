import { ensureProgram } from './program.mjs';

/**
 * The path of a Chromium, in which the tests open pages; where the machine has none, its package manager is asked to
 * install it.
 * @param {(line: string) => void} [log]
 * @returns {string}
 */
export function ensureChromium(log) {
  return ensureProgram(
    {
      names: [
        'chromium',
        'chromium-browser',
        'google-chrome',
        '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
        '/Applications/Chromium.app/Contents/MacOS/Chromium',
      ],
      variable: 'CHROMIUM_BIN',
      packages: { apt: 'chromium' },
      otherwise: ['Or install Chromium or Chrome in another way and set CHROMIUM_BIN to its path.'],
    },
    log,
  );
}
