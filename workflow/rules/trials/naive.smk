use rule test as test_naive with:
    wildcard_constraints:
        method=variants("naive"),
    params:
        code=method_code("naive"),
