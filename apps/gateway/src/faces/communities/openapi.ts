import { answer, body, object, path, problems, text } from '../../http/openapi-parts.js';

const communityCall = (field: 'managers' | 'members') => ({
  put: {
    tags: ['Inbox'],
    summary: `Replaces the ${field} of a community (role service or admin)`,
    parameters: [path('id', "The community's id")],
    requestBody: body(object({ [field]: { type: 'array', items: text('') } })),
    responses: {
      200: answer(
        'As it is now',
        object({ community: text(''), [field]: { type: 'array', items: text('') } }),
      ),
      ...problems('forbidden'),
    },
  },
});

export const COMMUNITY_PATHS = {
  '/v1/communities/{id}/managers': communityCall('managers'),
  '/v1/communities/{id}/members': communityCall('members'),
};
