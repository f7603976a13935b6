from flows.store import sql


def test_nodes_show_whether_they_live_and_what_they_run(admin_client, start, claim):
    start()
    claim()
    (node,) = admin_client.get("/admin/flows/node/").context["cl"].result_list
    assert (node.alive, node.claim_count) == (True, 1)
    assert admin_client.get(f"/admin/flows/node/{node.pk}/change/").context["original"].claim_count == 1
    sql.rows("UPDATE flows_node SET lease_until = now() - interval '1 second'")
    (node,) = admin_client.get("/admin/flows/node/").context["cl"].queryset
    assert not node.alive
