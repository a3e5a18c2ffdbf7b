-- stock_outs: the SKUs that had sold out at each moment, and since when. What is shown of them later is no exposure.
-- A SKU has sold out at the end of the period in which its units, as they were known at the moment, reached its stock,
-- if nothing was sold after that period. Sales that go on prove the stock wrong: of an export that carries today's
-- stock, or of a SKU that was stocked up again. A stock of 0 tells nothing: what is made to order sells all the same.
-- Grain: as_of, sku_id.
-- Reads: moments (as_of, sku_id), catalog, reports, scope.
with
sold as (
    select
        moments.as_of,
        moments.sku_id,
        catalog.reached_stock,
        reports.period_start,
        coalesce(sum(reports.units), 0) as units,
        coalesce(sum(reports.units), 0) + coalesce(sum(reports.orders), 0) + coalesce(sum(reports.revenue), 0) as sales
    from moments
    inner join catalog on moments.sku_id = catalog.sku_id
    inner join reports on moments.sku_id = reports.sku_id
    where
        catalog.reached_stock is not null
        and reports.known_at <= moments.as_of
        and reports.period_start < moments.as_of
        and (reports.superseded_at is null or reports.superseded_at > moments.as_of)
    group by moments.as_of, moments.sku_id, catalog.reached_stock, reports.period_start
),

summed as (
    select
        sold.*,
        sum(units) over (partition by as_of, sku_id order by period_start asc nulls last) as units_so_far
    from sold
),

ended as (
    select
        as_of,
        sku_id,
        min(period_start) filter (where units_so_far >= reached_stock) as last_in_stock,
        max(period_start) filter (where sales > 0) as last_sale
    from summed
    group by as_of, sku_id
),

sold_out as (
    select
        ended.as_of,
        ended.sku_id,
        epoch(ended.last_in_stock) + scope.period_seconds as sold_out_second
    from ended
    cross join scope
    -- The period that reached the stock has sold something itself.
    where ended.last_sale = ended.last_in_stock
)

select * from sold_out
