/** `GET /docs` for people, `GET /docs-json` for programs: the OpenAPI document of the REST calls. */
import type { INestApplication } from '@nestjs/common';
import { type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { OPENAPI } from './openapi.js';

export function serveDocs(app: INestApplication): void {
  // The types of Nest know version 3.0 of the document alone; what is served is JSON either way.
  const document = OPENAPI as unknown as OpenAPIObject;
  SwaggerModule.setup('docs', app, document, { customSiteTitle: 'Posthorn' });
}
