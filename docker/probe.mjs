/** The image's health check: ends with 0 when the app of this container is ready to serve. The image has no curl. */
const response = await fetch(`http://127.0.0.1:${process.env.PORT}/health/ready`, {
  signal: AbortSignal.timeout(2_000),
}).catch((error) => ({ ok: false, status: error.cause?.code ?? error.name }));
if (!response.ok) {
  console.error(`not ready: ${response.status}`);
  process.exitCode = 1;
}
