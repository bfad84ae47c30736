/** `GET /docs` for people, `GET /docs-json` for programs: the OpenAPI document of the REST calls. */
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { OPENAPI } from './openapi.js';

const PATH = 'docs';

/** What the page of Swagger UI needs: its own files, the styles in its HTML, and pictures inside its style sheet. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export function serveDocs(app: NestFastifyApplication): void {
  const isPage = new RegExp(`^/${PATH}(/|$)`);
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('onRoute', (route) => {
      if (!isPage.test(route.url)) return;
      route.onRequest = (_request, reply, done) => {
        reply.header('content-security-policy', POLICY);
        done();
      };
    });
  // The types of Nest know version 3.0 of the document alone; what is served is JSON either way.
  const document = OPENAPI as unknown as OpenAPIObject;
  SwaggerModule.setup(PATH, app, document, { customSiteTitle: 'Posthorn' });
}
