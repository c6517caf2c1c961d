use rule test as test_proposed_plugin with:
    wildcard_constraints:
        method=variants("proposed_plugin"),
    params:
        code=method_code("proposed_plugin"),
