import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it } from '@jest/globals';
import { startBrowser } from './browser.js';

it('opens pages of a server on this machine and runs their scripts', async () => {
  const server = createServer((_request, response) =>
    response
      .setHeader('content-type', 'text/html')
      .end('<p></p><script>document.querySelector("p").textContent = 6 * 7</script>'),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await using browser = await startBrowser();
    const page = await browser.newPage();

    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);

    expect(await page.textContent('p')).toBe('42');
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
