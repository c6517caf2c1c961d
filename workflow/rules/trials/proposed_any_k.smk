use rule test as test_proposed_any_k with:
    wildcard_constraints:
        method=variants("proposed_any_k"),
    params:
        code=method_code("proposed_any_k"),
